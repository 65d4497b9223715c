"""How a MokaLinear's output is computed: the cheapest form of the same update for the forward at hand."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from moka_peft.ops import delta
from moka_peft.ops.adapted import adapted_linear
from moka_peft.ops.compiled import compiled_update, lone_tokens
from moka_peft.ops.dropout import Dropout
from moka_peft.ops.implementation import parts_for
from moka_peft.ops.update import Update
from moka_peft.routing import PADDING, Routing
from moka_peft.routing.facts import has_padding


@dataclass(frozen=True)
class DeltaOptions:
    """How one adapter computes its delta; the fields are those of `MokaConfig`."""

    modalities: tuple[str, ...]
    cross_scale: float | tuple[float, ...]
    interaction: str
    scale_before_attention: bool
    instruction_span: str
    impl: str

    settings: dict[str, Any] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        """`settings`: the keyword arguments of `moka_delta` that depend neither on the rank nor on the machine."""
        names = ("interaction", "scale_before_attention", "instruction_span")
        lambdas = delta.per_modality(self.cross_scale, len(self.modalities) - 1)
        settings = {"cross_scale": lambdas, **{name: getattr(self, name) for name in names}}
        object.__setattr__(self, "settings", settings)


@dataclass(eq=False, slots=True)
class Adapter:
    """What one adapter holds for one layer: `A` [r, I] per modality, `B` [O, r], and the share of x that it drops."""

    A: list[Tensor]
    B: Tensor
    scaling: float
    dropout: float
    options: DeltaOptions


def updated(adapter: Adapter, x: Tensor, routing: Routing, base: Any, result: Tensor | None) -> Tensor:
    """`result` [..., O] with the adapter's update of x [..., I] added; None: `base` is plain, its part is done here.

    The weights take x's dtype, not x theirs: a wider copy of every layer's input would be kept for the backward.
    """
    options, given = adapter.options, x
    x = _as_autocast(x)
    in_operators = torch.compiler.is_compiling() or options.impl == "reference"
    if result is None and in_operators:
        result = base(given)
    weight = bias = None
    if result is None:
        weight, bias = _as_autocast(base.weight), None if base.bias is None else _as_autocast(base.bias)
    added_to = result if result is not None and result.dtype == x.dtype else None
    if in_operators:
        y, added_to = _delta(adapter, x, routing), None
    else:
        update = Update.of(
            routing,
            x.dtype,
            parts_for(options.impl, x, adapter.B.shape[1]),
            scaling=adapter.scaling,
            dropout=_draw(adapter),
            **options.settings,
        )
        y = adapted_linear(x, weight, bias, added_to, adapter.A, adapter.B, update)
    return y if result is None or added_to is not None else result + y.to(result.dtype)


def text_updated(
    A: Tensor, B: Tensor, scaling: float, x: Tensor, routing: Routing, base: Any, result: Tensor | None
) -> Tensor:
    """As `updated`, where all tokens are text and no gradient is recorded: A_text [r, I] is all that is needed."""
    given, x = x, _as_autocast(x)
    dtype = x.dtype
    z = F.linear(x, A if A.dtype == dtype else A.to(dtype)).view(-1, A.shape[0])
    if routing.shape[1] > 1 and has_padding(routing):  # a lone token that is padding is nobody's result
        z.masked_fill_((routing.modality == PADDING).view(-1, 1), 0)
    B = B.t() if B.dtype == dtype else B.to(dtype).t()
    if result is None:
        result = F.linear(given, base.weight, base.bias)
        result.view(-1, B.shape[1]).addmm_(z, B, alpha=scaling)
        return result
    flat = result.flatten(0, -2)
    if result.dtype != dtype:
        return result + (z.mul_(scaling) @ B).view(result.shape).to(result.dtype)
    return torch.addmm(flat, z, B, alpha=scaling).view(result.shape)


def with_residual(adapter: Adapter, x: Tensor, routing: Routing, result: Tensor) -> Tensor:
    """`result` [..., O] of a base that holds the adapter's text path, with what it lacks added."""
    x = _as_autocast(_dropped(adapter, x))
    A, B = torch.stack([a.to(x.dtype) for a in adapter.A]), adapter.B.to(x.dtype)
    if _is_lone(routing):
        z = lone_tokens(x.reshape(*routing.shape, -1), A - A[0], routing)
        return result + F.linear(z * adapter.scaling, B).view(result.shape).to(result.dtype)
    rows = x.reshape(*routing.shape, -1)
    added_to = result.reshape(*routing.shape, -1)
    options = {"scaling": adapter.scaling, "impl": adapter.options.impl, **adapter.options.settings}
    return delta.add_residual(added_to, rows, A, B, routing, **options).view(result.shape)


def _delta(adapter: Adapter, x: Tensor, routing: Routing) -> Tensor:
    """The update alone, in operators that a compiler or the reference takes: [..., O]."""
    A, B = torch.stack([a.to(x.dtype) for a in adapter.A]), adapter.B.to(x.dtype)
    options = {"scaling": adapter.scaling, "impl": adapter.options.impl, **adapter.options.settings}
    rows = _dropped(adapter, x).reshape(*routing.shape, -1)
    if adapter.options.impl == "reference":
        y = delta.moka_delta(rows, A, B, routing, **options)
    elif _is_lone(routing):
        y = F.linear(lone_tokens(rows, A, routing) * adapter.scaling, B)
    else:
        y = F.linear(compiled_update(rows, A, routing, **options), B)
    return y.view(*x.shape[:-1], -1)


def _is_lone(routing: Routing) -> bool:
    """Whether rows are one token long in a compiled graph: nobody is there to attend to."""
    return torch.compiler.is_compiling() and routing.shape[1] == 1


def _draw(adapter: Adapter) -> Dropout | None:
    return Dropout.draw(adapter.dropout) if adapter.dropout else None


def _dropped(adapter: Adapter, x: Tensor) -> Tensor:
    return F.dropout(x, adapter.dropout) if adapter.dropout else x


def _as_autocast(tensor: Tensor) -> Tensor:
    """In the dtype that an autocast Linear would compute in; as it is outside autocast."""
    kind = tensor.device.type
    if tensor.is_meta or not torch.is_autocast_enabled(kind) or tensor.dtype == torch.float64:
        return tensor
    return tensor.to(torch.get_autocast_dtype(kind))
