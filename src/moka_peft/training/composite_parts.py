"""A composite from the parts that a recipe names: a language model, encoders, projectors."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from transformers import AutoConfig, AutoModelForCausalLM

from moka_peft.composite import build_composite
from moka_peft.composite.encoders import build_encoder, load_encoder_config
from moka_peft.composite.text_models import text_config_of


def open_composite(
    text: str,
    vision: Mapping[str, Any] | None = None,
    audio: Mapping[str, Any] | None = None,
    *,
    tokenizer: str | None = None,
    chat_template: str | None = None,
    dtype: str = "auto",
    weights: bool = True,
) -> tuple[Any, Any]:
    """Joins the parts, each loaded from a hub id or a folder, with fresh projectors; gives the model and its processor.

    vision, audio: the fields of a recipe's `Encoder`. chat_template: a file. Without `weights` only configs, tokenizer
    and processors are read, and the model is on the meta device.
    """
    sections = {name: section for name, section in {"vision": vision, "audio": audio}.items() if section is not None}
    names = {name: section["name"] for name, section in sections.items()}
    return build_composite(
        text if weights else _empty_text_model(text),
        tokenizer=tokenizer or text,
        chat_template=Path(chat_template).read_text(encoding="utf-8") if chat_template else None,
        dtype=dtype,
        **(names if weights else {part: _empty_encoder(name) for part, name in names.items()}),
        **_settings(sections),
    )


def _empty_text_model(name: str) -> Any:
    with torch.device("meta"):
        return AutoModelForCausalLM.from_config(text_config_of(AutoConfig.from_pretrained(name)))


def _empty_encoder(name: str) -> Any:
    with torch.device("meta"):
        return build_encoder(load_encoder_config(name))


def _settings(sections: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    """The keywords of `build_composite` that say how encoders are read; what a recipe leaves out is left to it."""
    settings: dict[str, Any] = {}
    for name, section in sections.items():
        for field in ("feature_layers", "feature_select", "projector"):
            if section.get(field) is not None:
                settings[f"{name}_{field}"] = section[field]
    if (audio := sections.get("audio")) is not None:
        processor = audio.get("processor") or audio["name"]
        settings |= {"segment_seconds": audio.get("segment_seconds"), "feature_extractor": processor}
    if (vision := sections.get("vision")) is not None:
        settings["image_processor"] = vision.get("processor") or vision["name"]
    return settings
