"""Parts that an earlier run trained in full, such as stage 1's projectors, put into the model of the next one."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from peft import PeftConfig
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

FILE = "base_parts.safetensors"
PREFIX = "base_model.model."
WEIGHTS = "adapter_model.safetensors"
ADAPTER_WORDS = ("lora_", "moka_")


def start_from(model: nn.Module, folders: Sequence[str | Path]) -> list[str]:
    """Puts the fully trained parts of earlier runs into a model and returns the names of these weights.

    Each folder is that of a finished run; what such a run began with itself comes along where no other one trained it.
    Raises ValueError, before anything is changed, where a run trained no part in full, two runs trained the same one,
    or one does not fit the model.
    """
    found: dict[str, Tensor] = {}
    owner: dict[str, Path] = {}
    for folder in map(Path, folders):
        weights = trained_parts(folder)
        if twice := sorted(set(weights) & set(found)):
            raise ValueError(
                f"`start_from`: {folder} and {owner[twice[0]]} both trained `{twice[0]}`. Keep one of them, or let one "
                "run start from the other."
            )
        _check_fit(model, weights, folder)
        found |= weights
        owner |= dict.fromkeys(weights, folder)
    for folder in map(Path, folders):
        carried = {name: weight for name, weight in _kept_parts(folder).items() if name not in owner}
        _check_fit(model, carried, folder)
        if other := [name for name, weight in carried.items() if not torch.equal(weight, found.get(name, weight))]:
            raise ValueError(
                f"`start_from`: {folder} and a run before it kept `{other[0]}` as they found it, with other values. "
                "Let one of these runs start from the other, and give that one."
            )
        found |= carried
    _copy(model, found)
    return sorted(found)


def trained_parts(folder: Path) -> dict[str, Tensor]:
    """The weights of the parts that a run trained in full, by their names in the base model."""
    weights = load_file(folder / WEIGHTS)
    parts = {name.removeprefix(PREFIX): weight for name, weight in weights.items() if _is_part(name)}
    if not parts:
        kind = PeftConfig.from_pretrained(str(folder)).peft_type
        raise ValueError(
            f"`start_from`: {folder} holds an adapter of type {kind} and no part that was trained in full: expected "
            "projectors, towers or embeddings. Give a run with `train.projectors: true`."
        )
    return parts


def keep_parts(model: Any, names: Sequence[str], folder: Path) -> None:
    """Writes those of an adapted model's weights that no hub id has and its adapter does not save.

    names: what came from earlier runs, or was made for this one. With it the run's folder stands alone.
    """
    base = model.get_base_model()
    weights = dict(base.named_parameters()) | dict(base.named_buffers())  # PEFT renamed what trains in a copy
    left = {name: weights[name].detach().cpu().contiguous() for name in names if name in weights}
    if left:
        save_file(left, folder / FILE)


def restore_parts(model: nn.Module, folder: Path) -> None:
    """Puts the weights that `keep_parts` wrote back into a fresh base model."""
    weights = _kept_parts(folder)
    _check_fit(model, weights, folder)
    _copy(model, weights)


def _kept_parts(folder: Path) -> dict[str, Tensor]:
    """The weights that `keep_parts` wrote; none where it had none to write."""
    return load_file(folder / FILE) if (folder / FILE).is_file() else {}


def _is_part(name: str) -> bool:
    return name.startswith(PREFIX) and not any(piece.startswith(ADAPTER_WORDS) for piece in name.split("."))


def _check_fit(model: nn.Module, weights: dict[str, Tensor], folder: Path) -> None:
    """Raises ValueError for a weight that the model does not have, or has in another shape."""
    own = dict(model.state_dict())
    for name, weight in weights.items():
        if name not in own or own[name].shape != weight.shape:
            got = f"{list(own[name].shape)}" if name in own else "no such weight"
            raise ValueError(
                f"`start_from`: {folder} was trained on another model: its `{name}` is {list(weight.shape)}, this "
                f"model has {got}. Use the same encoders, projectors and language model in both recipes."
            )


@torch.no_grad()
def _copy(model: nn.Module, weights: dict[str, Tensor]) -> None:
    own = model.state_dict()
    for name, weight in weights.items():
        own[name].copy_(weight)
