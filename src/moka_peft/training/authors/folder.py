"""Reads the files of a folder that the authors' code wrote; says nothing about what is in them."""

import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from torch import Tensor

CONFIG = "adapter_config.json"
ADAPTERS = ("adapter_model.bin", "adapter_model.safetensors", "model.safetensors")
WHOLE_MODEL = "model.safetensors"  # what the Trainer saves of the visual-text code's model: frozen weights, too
TRAINABLES = ("non_lora_trainables.bin", "non_lora_trainables.safetensors")
STAGE_1 = ("visual_pretrain.bin", "audio_pretrain.bin")  # the released projectors of stage 1
EMBEDDINGS = re.compile(r"(?:base_model\.model\.)?model\.embed_tokens\.weight")  # beside stage 1's projectors
TRAINED = ("lora_", "vl_projector.", "al_projector.", "multi_modal_projector.")


@dataclass(frozen=True)
class AuthorsFolder:
    """has_adapter: False after stage 1, which trains projectors alone. config: of the adapter, empty where none lies
    there. weights: by their keys. frozen: keys of a base model's weights that lie in the same file and were not read.
    files: the names of those that were."""

    has_adapter: bool
    config: dict[str, Any]
    weights: dict[str, Tensor]
    frozen: list[str]
    files: list[str]


def read_folder(path: Path) -> AuthorsFolder:
    """Reads the adapter, its config and what trained beside it; or the projectors that stage 1 trained.

    Raises FileNotFoundError where there is nothing of these, or no adapter beside its config, ValueError for a file
    that cannot be read.
    """
    adapter, trainables, config = _only(path, ADAPTERS), _only(path, TRAINABLES), path / CONFIG
    stage_1 = [path / name for name in STAGE_1 if adapter is None and (path / name).is_file()]
    files = [file for file in (adapter, trainables, *stage_1) if file is not None]
    if not files:
        raise FileNotFoundError(
            f"`source` holds no checkpoint of the authors' code: expected one of {', '.join(ADAPTERS)} in {path}, or "
            f"of {', '.join((TRAINABLES[0], *STAGE_1))} after stage 1. Give the folder that their training wrote."
        )
    if adapter is None and config.is_file():
        raise FileNotFoundError(
            f"`source` is not whole: {path} has {CONFIG}, but none of {', '.join(ADAPTERS)}. Copy the folder "
            f"again; for its projectors alone, take {CONFIG} away."
        )
    weights: dict[str, Tensor] = {}
    owner: dict[str, Path] = {}
    frozen: list[str] = []
    for file in files:
        tensors, left = _read(file)
        twice = sorted(key for key in tensors if key in weights and not EMBEDDINGS.fullmatch(key))
        if twice:
            raise ValueError(f"`source`: {owner[twice[0]]} and {file} both hold {twice[0]!r}. Take one of them away.")
        weights |= tensors
        owner |= dict.fromkeys(tensors, file)
        frozen += left
    names = [CONFIG] if adapter is not None and config.is_file() else []
    read = _read_config(config) if names else {}
    return AuthorsFolder(adapter is not None, read, weights, frozen, names + [file.name for file in files])


def _only(path: Path, names: tuple[str, ...]) -> Path | None:
    """The one file of these names that is there."""
    found = [path / name for name in names if (path / name).is_file()]
    if len(found) > 1:
        named = " and ".join(file.name for file in found)
        raise ValueError(f"`source` is not clear: {path} holds {named}. Keep the one to be read.")
    return found[0] if found else None


def _read_config(path: Path) -> dict[str, Any]:
    try:
        config = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(f"`source`: {path} is not valid JSON: {error}. Copy it again.") from error
    if not isinstance(config, dict):
        raise ValueError(f"`source`: {path} holds no config: expected keys and values, got {type(config).__name__}.")
    return config


def _read(path: Path) -> tuple[dict[str, Tensor], list[str]]:
    """The tensors of a file by key, and the keys of frozen weights in a whole model's file."""
    try:
        if path.suffix == ".safetensors":
            return _read_safetensors(path)
        tensors = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # a damaged pickle raises anything: OSError, IndexError, UnicodeDecodeError
        reason = str(error).partition("\n")[0]
        raise ValueError(
            f"`source`: {path} cannot be read as tensors ({reason}). Nothing but tensors is loaded from it: copy the "
            "file again, or save its state dict anew with torch.save."
        ) from error
    is_tensors = isinstance(tensors, dict) and all(
        isinstance(key, str) and isinstance(value, Tensor) for key, value in tensors.items()
    )
    if not is_tensors:
        raise ValueError(f"`source`: {path} is no state dict: expected names and tensors. Save one with torch.save.")
    return {key: value.detach() for key, value in tensors.items()}, []


def _read_safetensors(path: Path) -> tuple[dict[str, Tensor], list[str]]:
    with safe_open(path, "pt") as file:
        keys = list(file.keys())
        frozen = [key for key in keys if path.name == WHOLE_MODEL and not any(word in key for word in TRAINED)]
        return {key: file.get_tensor(key) for key in keys if key not in set(frozen)}, frozen
