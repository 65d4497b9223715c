"""Reads and writes the published form of BEATs: a `.pt` of {"cfg": settings, "model": state dict}."""

import os
import pickle
import re
import zipfile
from typing import Any

import torch
from torch import Tensor

from .config import BeatsConfig
from .model import BeatsModel

PUBLISHED_AT = "github.com/microsoft/unilm, folder beats, has the download links"

SETTINGS = tuple(BeatsConfig.__annotations__)
"""What is taken of a published cfg: it also has settings of the classifier."""

LEFT_OUT = {
    "deep_norm": False,
    "max_distance": 1280,
    "relative_position_embedding": False,
    "gru_rel_pos": False,
    "dropout": 0.1,
    "attention_dropout": 0.1,
    "encoder_layerdrop": 0.0,
    "layer_wise_gradient_decay_ratio": 1.0,
}
"""What a published cfg means by not naming a setting, where that is not this config's default."""

PUBLISHED_NAMES = {
    "encoder.pos_conv.0.gain": "encoder.pos_conv.0.weight_g",
    "encoder.pos_conv.0.direction": "encoder.pos_conv.0.weight_v",
}
"""The weights that have another name in a published checkpoint."""

HEAD = "predictor."
"""The classifier of fine-tuned checkpoints, which an encoder leaves out."""

BIAS = "encoder.layers.{}.self_attn.relative_attention_bias.weight"
"""The position bias: published once per layer, each a copy of the first."""


def load_beats(path: str | os.PathLike, dtype: torch.dtype | str | None = "auto") -> BeatsModel:
    """An encoder in eval mode with the weights of a published checkpoint, pre-trained or fine-tuned.

    `dtype` "auto" or None keeps the checkpoint's. Raises FileNotFoundError where `path` is no file, ValueError
    where it is no BEATs checkpoint; the keys or shapes that do not fit are listed.
    """
    checkpoint = _read(os.fspath(path))
    config = _config_of(checkpoint)
    with torch.device("meta"):
        model = BeatsModel(config)
    weights = _own_names(checkpoint["model"], path)
    _check(weights, model.state_dict(), path)
    target = None if dtype in ("auto", None) else _as_dtype(dtype)
    model.load_state_dict({name: weight.to(target, copy=True) for name, weight in weights.items()}, assign=True)
    config.dtype = next(model.parameters()).dtype
    return model.eval()


def read_beats_config(path: str | os.PathLike) -> BeatsConfig:
    """The config of the encoder in a published checkpoint. Raises like `load_beats`."""
    return _config_of(_read(os.fspath(path)))


def save_beats(model: BeatsModel, path: str | os.PathLike) -> None:
    """Writes an encoder in the published form, for code that reads BEATs' own checkpoints."""
    weights = {PUBLISHED_NAMES.get(name, name): weight for name, weight in model.state_dict().items()}
    for layer in range(1, model.config.encoder_layers):
        weights[BIAS.format(layer)] = weights[BIAS.format(0)]
    torch.save({"cfg": {name: getattr(model.config, name) for name in SETTINGS}, "model": weights}, path)


def _read(path: str) -> dict[str, Any]:
    """The checkpoint's two dicts, its tensors still on disk where the file's format allows it."""
    if not os.path.isfile(path):
        raise FileNotFoundError(f"`{path}` is no file: expected a BEATs checkpoint (.pt). {PUBLISHED_AT}.")
    try:
        checkpoint = torch.load(path, map_location="cpu", weights_only=True, mmap=zipfile.is_zipfile(path))
    except (pickle.UnpicklingError, EOFError, RuntimeError) as error:
        raise ValueError(
            f"`{path}` is no checkpoint that holds only weights. Download it anew: {PUBLISHED_AT}."
        ) from error
    for name in ("cfg", "model"):
        if not isinstance(checkpoint, dict) or not isinstance(checkpoint.get(name), dict):
            found = sorted(map(str, checkpoint)) if isinstance(checkpoint, dict) else type(checkpoint).__name__
            raise ValueError(
                f"`{path}` has no `{name}`: expected a dict of `cfg` and `model`, got {found}. {PUBLISHED_AT}."
            )
    return checkpoint


def _config_of(checkpoint: dict[str, Any]) -> BeatsConfig:
    settings = LEFT_OUT | checkpoint["cfg"]
    return BeatsConfig(**{name: settings[name] for name in SETTINGS if name in settings})


def _own_names(published: dict[str, Tensor], path: str | os.PathLike) -> dict[str, Tensor]:
    """Published weights under this model's names, without a classifier and the copies of the position bias."""
    own_names = {theirs: own for own, theirs in PUBLISHED_NAMES.items()}
    is_bias = re.compile(re.escape(BIAS).replace(r"\{\}", r"\d+")).fullmatch
    weights = {}
    for name, weight in published.items():
        if name.startswith(HEAD):
            continue
        if not is_bias(name) or name == BIAS.format(0):
            weights[own_names.get(name, name)] = weight
        elif not torch.equal(weight, published.get(BIAS.format(0), torch.empty(0))):
            raise ValueError(f"`{path}`: `{name}` is not a copy of layer 0's. Every BEATs layer shares one bias.")
    return weights


def _check(weights: dict[str, Tensor], expected: dict[str, Tensor], path: str | os.PathLike) -> None:
    """Raises ValueError listing what is missing, unexpected or of another shape."""
    both = weights.keys() & expected.keys()
    problems = {
        "missing": sorted(expected.keys() - weights.keys()),
        "unexpected": sorted(weights.keys() - expected.keys()),
        "of another shape": [
            f"{name} {list(weights[name].shape)} instead of {list(expected[name].shape)}"
            for name in sorted(both)
            if weights[name].shape != expected[name].shape
        ],
    }
    found = "; ".join(f"{problem}: {', '.join(names)}" for problem, names in problems.items() if names)
    if found:
        raise ValueError(f"`{path}` does not hold the BEATs encoder that its cfg describes. {found}. {PUBLISHED_AT}.")


def _as_dtype(dtype: torch.dtype | str | None) -> torch.dtype:
    return getattr(torch, dtype) if isinstance(dtype, str) else dtype  # pyright: ignore[reportReturnType]
