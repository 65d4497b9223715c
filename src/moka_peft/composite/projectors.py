"""Maps an encoder's features to embeddings of the language model.

A projector takes features [N, T, D_in], N images, frames or segments, and returns embeddings [N, T', D_out].
It sees one image, frame or segment at a time, so media of any length need no padding.
"""

from collections.abc import Callable
from typing import Any

from torch import nn
from transformers.activations import ACT2FN

from .qformer import QFormerProjector


def _linear(width_in: int, width_out: int, *, norm: bool = False, bias: bool = True) -> nn.Module:
    """One affine map per feature vector; `norm` puts a LayerNorm before it."""
    layers = [nn.LayerNorm(width_in)] if norm else []
    return nn.Sequential(*layers, nn.Linear(width_in, width_out, bias=bias))


def _mlp(
    width_in: int,
    width_out: int,
    *,
    hidden_size: int | None = None,
    act: str = "gelu",
    norm: bool = True,
    bias: bool = True,
) -> nn.Module:
    """Linear, activation, linear per feature vector; `hidden_size` is the language model's width by default.

    The LayerNorm is on by default: hidden states taken before an encoder's last norm can have norms in the
    hundreds.
    """
    hidden_size = hidden_size or width_out
    layers: list[nn.Module] = [nn.LayerNorm(width_in)] if norm else []
    layers += [nn.Linear(width_in, hidden_size, bias=bias), ACT2FN[act]]
    return nn.Sequential(*layers, nn.Linear(hidden_size, width_out, bias=bias))


PROJECTORS: dict[str, Callable[..., nn.Module]] = {"linear": _linear, "mlp": _mlp, "qformer": QFormerProjector}


def build_projector(section: dict[str, Any], width_in: int, width_out: int) -> nn.Module:
    """Builds the projector that a config section `{"type": ..., **settings}` describes."""
    settings = {key: value for key, value in section.items() if key != "type"}
    try:
        return PROJECTORS[section["type"]](width_in, width_out, **settings)
    except TypeError as error:
        raise ValueError(f"`{section['type']}` projector has wrong settings {settings}: {error}.") from error
