"""lmms-eval, the public harness, with our models and our benchmarks: `lmms-eval --model moka`."""

from typing import Any


def manifest() -> Any:
    """What lmms-eval learns of our model from the entry point `lmms_eval.models`; opens nothing."""
    from lmms_eval.models.registry_v2 import ModelManifest  # pyright: ignore[reportMissingImports]

    place = f"{__name__}.model"
    return ModelManifest("moka", simple_class_path=f"{place}.MokaSimple", chat_class_path=f"{place}.Moka")
