"""Reads the files of a folder that the authors' code wrote; says nothing about what is in them."""

import json
import pickle
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

CONFIG = "adapter_config.json"
ADAPTERS = ("adapter_model.bin", "adapter_model.safetensors", "model.safetensors")
WHOLE_MODEL = "model.safetensors"  # what the Trainer saves of the visual-text code's model: frozen weights, too
TRAINABLES = ("non_lora_trainables.bin", "non_lora_trainables.safetensors")
TRAINED = ("lora_", "vl_projector.", "al_projector.", "multi_modal_projector.")


@dataclass(frozen=True)
class AuthorsFolder:
    """config: of the adapter, empty where there is none. weights: by their keys. frozen: keys of a base model's
    weights that lie in the same file and were not read. files: the names of those that were."""

    path: Path
    config: dict[str, Any]
    weights: dict[str, Tensor]
    frozen: list[str]
    files: list[str]


def read_folder(path: Path) -> AuthorsFolder:
    """Reads the adapter, its config and what trained beside it.

    Raises FileNotFoundError where there is no adapter, ValueError for a file that cannot be read.
    """
    adapter = _only(path, ADAPTERS)
    if adapter is None:
        raise FileNotFoundError(
            f"`source` holds no adapter of the authors' code: expected one of {', '.join(ADAPTERS)} in {path}. Give "
            "the folder that their training wrote."
        )
    weights, frozen = _read(adapter)
    trainables = _only(path, TRAINABLES)
    beside = _read(trainables)[0] if trainables else {}
    if twice := sorted(set(weights) & set(beside)):
        raise ValueError(f"`source`: {adapter} and {trainables} both hold {twice[0]!r}. Take one of them away.")
    config = path / CONFIG
    read = [file.name for file in (config if config.is_file() else None, adapter, trainables) if file is not None]
    return AuthorsFolder(path, _read_config(config), weights | beside, frozen, read)


def _only(path: Path, names: tuple[str, ...]) -> Path | None:
    """The one file of these names that is there."""
    found = [path / name for name in names if (path / name).is_file()]
    if len(found) > 1:
        named = " and ".join(file.name for file in found)
        raise ValueError(f"`source` is not clear: {path} holds {named}. Keep the one to be read.")
    return found[0] if found else None


def _read_config(path: Path) -> dict[str, Any]:
    if not path.is_file():
        return {}
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
    except (pickle.UnpicklingError, SafetensorError, RuntimeError, EOFError) as error:
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
