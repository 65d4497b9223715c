"""Opening the base model, putting an adapter on it, and opening both again from a run's folder."""

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
import yaml
from peft import LoraConfig, PeftConfig, PeftModel, get_peft_model
from torch import nn
from transformers import AutoModelForImageTextToText, AutoProcessor

from moka_peft.composite import load_tiny_avt, tiny_avt_processor
from moka_peft.routing import RoutingSpec
from moka_peft.training.folder import RECIPE
from moka_peft.training.recipe import MOKA_ONLY
from moka_peft.tuner import MokaConfig

PROJECTORS = (
    "vision_projector", "audio_projector", "multi_modal_projector", "mm_projector", "multimodal_projector",
    "merger", "connector", "embed_vision", "embed_audio", "aligner",
)  # fmt: skip


def load_model(
    name: str, revision: str | None = None, dtype: str = "float32", with_processor: bool = True
) -> tuple[Any, Any]:
    """Opens a base model and its processor: `tiny-avt`, a folder, or a hub id; on the GPU where there is one.

    Raises OSError where there is no such model. The processor is None where `with_processor` is False.
    """
    model: Any
    if name == "tiny-avt":
        model, processor = load_tiny_avt()
        model = model if dtype == "auto" else model.to(getattr(torch, dtype))
    else:
        model = AutoModelForImageTextToText.from_pretrained(name, revision=revision, dtype=dtype)
        processor = load_processor(name, revision) if with_processor else None
    return model.to("cuda" if torch.cuda.is_available() else "cpu"), processor


def load_processor(name: str, revision: str | None = None) -> Any:
    """Opens only the processor of a base model; loads no weights."""
    return tiny_avt_processor() if name == "tiny-avt" else AutoProcessor.from_pretrained(name, revision=revision)


def add_adapter(
    model: Any,
    processor: Any,
    method: str,
    *,
    train_projectors: bool,
    modules_to_save: list[str] | None,
    **settings: Any,
) -> PeftModel:
    """Puts a `moka` or `lora` adapter on a model; with `train_projectors`, its projectors train in full.

    settings: keywords of `MokaConfig`, of which LoRA leaves out its own (`MOKA_ONLY`). Raises ValueError where
    they do not fit the model.
    """
    projectors = find_projectors(model) if train_projectors else []
    settings["modules_to_save"] = sorted({*(modules_to_save or ()), *projectors}) or None
    if method == "moka":
        spec = RoutingSpec.from_pretrained(model, processor)
        config: PeftConfig = MokaConfig(**settings, routing=spec)
    else:
        settings = {key: value for key, value in settings.items() if key not in MOKA_ONLY}
        settings["target_modules"] = settings["target_modules"] or decoder_linears(model)
        config = LoraConfig(**settings)
    with without_renaming_warnings():
        return get_peft_model(model, config)  # pyright: ignore[reportReturnType]


def find_projectors(model: nn.Module) -> list[str]:
    """Names of the modules between a model's encoders and its text decoder; raises ValueError for none."""
    found = {name.rpartition(".")[2] for name, _ in model.named_modules()} & set(PROJECTORS)
    if not found:
        raise ValueError(
            f"`train_projectors` finds no projector in {type(model).__name__}: expected a module called "
            f"{', '.join(PROJECTORS)}. Name it in `adapter.modules_to_save` instead."
        )
    return sorted(found)


def decoder_linears(model: Any) -> list[str]:
    """Full names of the Linears in the text decoder's layers: what LoRA adapts when a recipe names no targets.

    PEFT's own default depends on the model type, and on many multimodal models reaches into the towers.
    """
    names = {module: name for name, module in model.named_modules()}
    layers = model.get_decoder().layers
    return [names[module] for module in layers.modules() if isinstance(module, nn.Linear)]


def load_adapted(folder: Path) -> tuple[PeftModel, Any]:
    """Opens what a run left in its folder: the base model with the adapter on it, and the processor.

    Also takes a bare PEFT adapter folder, whose base model is then the one named in its config.
    """
    if not (folder / "adapter_config.json").is_file():
        raise FileNotFoundError(
            f"`adapter` is no adapter folder: {folder} has no adapter_config.json. Give a finished run's folder."
        )
    has_processor = (folder / "processor_config.json").is_file()
    base, processor = load_model(**_base_of(folder), with_processor=not has_processor)
    processor = AutoProcessor.from_pretrained(folder) if has_processor else processor
    with without_renaming_warnings():
        return PeftModel.from_pretrained(base, str(folder)).eval(), processor


@contextmanager
def without_renaming_warnings() -> Iterator[None]:
    """Silences the one warning that PEFT causes by reading a property that transformers 5.23 renamed."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "`is_gradient_checkpointing` is deprecated", FutureWarning)
        yield


def _base_of(folder: Path) -> dict[str, Any]:
    """Which model the adapter belongs to; the recipe knows `tiny-avt` wherever the package is installed."""
    if (folder / RECIPE).is_file():
        return yaml.safe_load((folder / RECIPE).read_text(encoding="utf-8"))["model"]
    config = PeftConfig.from_pretrained(str(folder))
    if not config.base_model_name_or_path:
        raise ValueError(f"`adapter` names no base model: {folder}/adapter_config.json. Add base_model_name_or_path.")
    return {"name": config.base_model_name_or_path, "revision": config.revision}
