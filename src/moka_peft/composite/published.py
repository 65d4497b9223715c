"""The full-size architectures that the recipes name, so that sizes are known before anything is downloaded."""

import json
from copy import deepcopy
from functools import cache
from importlib import resources
from pathlib import PurePosixPath
from typing import Any

from transformers import AutoConfig, PreTrainedConfig

BEATS = "BEATs_iter3*.pt"
"""BEATs' published files, in any folder: of one architecture, with and without a classifier."""


def published_config(name: str) -> PreTrainedConfig:
    """The config of a published model, as its hub id's `config.json` or its checkpoint describes it.

    Two-tower models and encoder-decoders come whole, as on the hub; Qwen2.5-Omni as its thinker, the part that
    trains. `BEATS` says which files are BEATs'. `published.json` holds the fields
    that set sizes, vocabulary, positions and ties; the rest are the class's defaults. Raises ValueError with the
    known names for any other.
    """
    if PurePosixPath(name).match(BEATS):
        from .beats import BeatsConfig

        return BeatsConfig()
    if name not in _table():
        raise ValueError(
            f"`name` is no architecture that is known here: expected one of {published_names()}, got {name!r}. Give a "
            f"folder with its config.json, or download it first."
        )
    fields: dict[str, Any] = deepcopy(_table()[name])
    return AutoConfig.for_model(fields.pop("model_type"), **fields)


def published_names() -> list[str]:
    """Every name that `published_config` knows: hub ids, then the pattern of BEATs' files."""
    return [*_table(), BEATS]


@cache
def _table() -> dict[str, dict[str, Any]]:
    return json.loads(resources.files("moka_peft.composite").joinpath("published.json").read_text(encoding="utf-8"))
