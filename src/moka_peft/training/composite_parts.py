"""A composite from the parts that a recipe names: a language model, encoders, projectors."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from moka_peft.composite import build_composite


def open_composite(
    text: str,
    vision: Mapping[str, Any] | None = None,
    audio: Mapping[str, Any] | None = None,
    *,
    tokenizer: str | None = None,
    chat_template: str | None = None,
    dtype: str = "auto",
) -> tuple[Any, Any]:
    """Joins the parts, each loaded from a hub id or a folder, with fresh projectors; gives the model and its processor.

    vision, audio: the fields of a recipe's `Encoder`. chat_template: a file.
    """
    sections = {name: section for name, section in {"vision": vision, "audio": audio}.items() if section is not None}
    return build_composite(
        text,
        tokenizer=tokenizer,
        chat_template=Path(chat_template).read_text(encoding="utf-8") if chat_template else None,
        dtype=dtype,
        **{name: section["name"] for name, section in sections.items()},
        **_settings(sections),
    )


def _settings(sections: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    """The keywords of `build_composite` that say how encoders are read; what a recipe leaves out is left to it."""
    settings: dict[str, Any] = {}
    for name, section in sections.items():
        for field in ("feature_layers", "feature_select", "projector"):
            if section.get(field) is not None:
                settings[f"{name}_{field}"] = section[field]
    if (audio := sections.get("audio")) is not None:
        settings |= {"segment_seconds": audio.get("segment_seconds"), "feature_extractor": audio.get("processor")}
    if (vision := sections.get("vision")) is not None:
        settings["image_processor"] = vision.get("processor")
    return settings
