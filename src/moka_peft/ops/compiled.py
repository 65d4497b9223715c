"""The routed part of an adapted Linear as one operator of a compiled graph.

Who attends to whom depends on the tokens: a graph of fixed shapes would compute every pair of them. The operator is
opaque to the compiler and makes the same plan as without it, once per forward. The base matmul, the expansion by B and
whatever follows stay in the graph.
"""

from collections import OrderedDict
from collections.abc import Sequence
from itertools import count
from typing import Any

import torch
from torch import Tensor

from moka_peft.routing import Routing

from .implementation import parts_for
from .update import Update, without_autocast

PLANS_KEPT = 8  # one that is gone is made again
READS: dict[str, Any] = (
    {"tags": [torch.Tag.cudagraph_unsafe]} if hasattr(torch.Tag, "cudagraph_unsafe") else {}
)  # from the device
_routings: OrderedDict[int, Routing] = OrderedDict()
_numbers = count()


def compiled_update(
    x: Tensor,
    A: Tensor,
    routing: Routing,
    *,
    scaling: float,
    cross_scale: Sequence[float],
    interaction: str,
    scale_before_attention: bool,
    instruction_span: str,
    impl: str,
) -> Tensor:
    """s u [B, S, r] from x [B, S, I] and A [M, r, I]; arguments as `moka_delta`."""
    plan = routing._derived.get("plan number")
    plan = plan_number(routing.modality, routing.turn) if plan is None else plan
    before, after = (scaling, 1.0) if scale_before_attention else (1.0, scaling)
    settings = (list(cross_scale), interaction, instruction_span, before, impl)
    u, _ = compress(x, A, routing.modality, routing.turn, plan, *settings)
    return u * after


def lone_tokens(x: Tensor, A: Tensor, routing: Routing) -> Tensor:
    """z [B, 1, r] of rows that are one token long, in operators that a compiler sees through."""
    own = routing.modality.clamp(min=0)[..., None, None].expand(-1, -1, 1, A.shape[1])
    z = torch.nn.functional.linear(x, A.flatten(0, 1)).unflatten(-1, A.shape[:2]).gather(2, own).squeeze(2)
    return z.masked_fill((routing.modality < 0).unsqueeze(-1), 0)


def numbered(routing: Routing) -> Routing:
    """A copy whose plan all layers of the compiled forward share; one token a row needs none."""
    if routing.shape[1] == 1:
        return routing
    known = routing._known()
    copy = Routing.unchecked(routing.modality, routing.turn, routing.modalities, routing.open_turn, **known)
    copy._derived["plan number"] = plan_number(routing.modality, routing.turn)
    return copy


@torch.library.custom_op("moka::plan_number", mutates_args=(), **READS)
def plan_number(modality: Tensor, turn: Tensor) -> Tensor:
    """A number by which later operators find this forward's plan: [1] int64 on the CPU."""
    number = next(_numbers)
    _keep(number, modality, turn)
    return torch.tensor([number], device="cpu")


@plan_number.register_fake
def _(modality: Tensor, turn: Tensor) -> Tensor:
    return torch.empty(1, dtype=torch.int64, device="cpu")


@torch.library.custom_op("moka::compress", mutates_args=(), **READS)
def compress(
    x: Tensor,
    A: Tensor,
    modality: Tensor,
    turn: Tensor,
    plan: Tensor,
    cross_scale: list[float],
    interaction: str,
    span: str,
    before: float,
    impl: str,
) -> tuple[Tensor, Tensor]:
    """u and z, both [B, S, r]."""
    update = _update(x, A.shape[1], modality, turn, plan, cross_scale, interaction, span, before, impl)
    with without_autocast(x):
        z = update.compress(x.reshape(-1, x.shape[-1]), A.unbind())
        u, _ = update.interact(z)
    u = u.clone() if u is z else u
    return u.view(*x.shape[:-1], -1), z.view(*x.shape[:-1], -1)


@compress.register_fake
def _(x: Tensor, A: Tensor, *settings: Any) -> tuple[Tensor, Tensor]:
    shape = (*x.shape[:-1], A.shape[1])
    return x.new_empty(shape), x.new_empty(shape)


@torch.library.custom_op("moka::compress_backward", mutates_args=(), **READS)
def compress_backward(
    du: Tensor,
    x: Tensor,
    z: Tensor,
    A: Tensor,
    modality: Tensor,
    turn: Tensor,
    plan: Tensor,
    cross_scale: list[float],
    interaction: str,
    span: str,
    before: float,
    impl: str,
) -> tuple[Tensor, Tensor]:
    """dx [B, S, I] and dA [M, r, I] from du [B, S, r]."""
    update = _update(x, A.shape[1], modality, turn, plan, cross_scale, interaction, span, before, impl)
    rows, flat = x.reshape(-1, x.shape[-1]), z.reshape(-1, z.shape[-1])
    dx = torch.zeros_like(rows, memory_format=torch.contiguous_format)
    du = du.reshape(flat.shape).clone()  # it is written to, and an operator must not write to what it is given
    with without_autocast(x):
        _, state = update.interact(flat)
        dA = update.compress_backward(dx, du, rows, flat, A.unbind(), state)
    return dx.view(x.shape), torch.stack(dA).to(A.dtype)


@compress_backward.register_fake
def _(du: Tensor, x: Tensor, z: Tensor, A: Tensor, *settings: Any) -> tuple[Tensor, Tensor]:
    return x.new_empty(x.shape), A.new_empty(A.shape)


def _keep_for_backward(ctx: Any, inputs: tuple, output: tuple[Tensor, Tensor]) -> None:
    x, A, modality, turn, plan, *ctx.settings = inputs
    ctx.save_for_backward(x, A, modality, turn, plan, output[1])


def _backward(ctx: Any, du: Tensor, dz: Tensor) -> tuple[Tensor | None, ...]:
    x, A, modality, turn, plan, z = ctx.saved_tensors
    dx, dA = compress_backward(du, x, z, A, modality, turn, plan, *ctx.settings)
    return dx, dA, *(None,) * (3 + len(ctx.settings))


compress.register_autograd(_backward, setup_context=_keep_for_backward)


def _update(
    x: Tensor,
    rank: int,
    modality: Tensor,
    turn: Tensor,
    plan: Tensor,
    cross_scale: list[float],
    interaction: str,
    span: str,
    before: float,
    impl: str,
) -> Update:
    """The update of one layer. `before` other than 1 is the scaling that comes before the attention."""
    number = int(plan)
    routing = _routings.get(number) or _keep(number, modality, turn)
    return Update.of(
        routing,
        x.dtype,
        parts_for(impl, x, rank),
        scaling=before,
        cross_scale=tuple(cross_scale),
        interaction=interaction,
        scale_before_attention=before != 1,
        instruction_span=span,
    )


def _keep(number: int, modality: Tensor, turn: Tensor) -> Routing:
    routing = Routing.unchecked(modality.clone(), turn.clone(), None, None)  # a graph may write over its own tensors
    _routings[number] = routing
    if len(_routings) > PLANS_KEPT:
        _routings.popitem(last=False)
    return routing
