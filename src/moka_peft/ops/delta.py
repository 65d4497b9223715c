"""moka_delta: what a MokA adapter adds to a frozen Linear's output; checks its input, picks an implementation."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from moka_peft.routing import Routing
from moka_peft.routing.facts import rows_as_text, stretches_that_differ

from . import reference
from .adapted import adapted_linear
from .compiled import compiled_update
from .implementation import IMPLEMENTATIONS, parts_for
from .update import Update

INTERACTIONS = ("cross_attention", "text_query", "mean", "none")
INSTRUCTION_SPANS = ("tokens", "contiguous")


def moka_delta(
    x: Tensor,
    A: Tensor,
    B: Tensor,
    routing: Routing,
    *,
    scaling: float,
    cross_scale: float | Sequence[float],
    interaction: str = "cross_attention",
    scale_before_attention: bool = False,
    instruction_span: str = "tokens",
    impl: str = "auto",
) -> Tensor:
    """The adapter's part of an adapted Linear: s B (z + lambda c), [B, S, O]. MokA, arXiv 2506.05191.

    x [B, S, I]; A [M, r, I], stacked in the order of the routing's modalities; B [O, r]; `scaling` s = alpha / r;
    `cross_scale` lambda, one number or one per media modality (M - 1). Differentiable in x, A and B; rows at
    padding are exactly 0; an A whose modality is absent gets zero gradients.
    `interaction`: "cross_attention" (media attend to their turn's instruction), "text_query" (the instruction
    attends to its turn's media), "mean" (media get the instruction's mean), "none".
    `scale_before_attention`: s on z rather than on the result. `instruction_span`: "contiguous" also counts the
    positions between an instruction's first and last token, as zero keys.
    Raises ValueError on shapes or options that do not fit.
    """
    check_options(interaction, instruction_span, impl)
    _check_shapes(x, A, B, routing)
    options = {
        "scaling": scaling,
        "cross_scale": per_modality(cross_scale, A.shape[0] - 1),
        "interaction": interaction,
        "scale_before_attention": scale_before_attention,
        "instruction_span": instruction_span,
    }
    if impl == "reference":
        return reference.moka_delta(x, A, B, routing, **options)
    if torch.compiler.is_compiling():
        return F.linear(compiled_update(x, A, routing, impl=impl, **options), B)
    return adapted_linear(
        x, None, None, None, A.unbind(), B, Update.of(routing, x.dtype, parts_for(impl, x, B.shape[1]), **options)
    )


def add_residual(
    result: Tensor,
    x: Tensor,
    A: Tensor,
    B: Tensor,
    routing: Routing,
    *,
    scaling: float,
    interaction: str,
    **options: Any,
) -> Tensor:
    """`result` [B, S, O] of a layer with s B A_text folded into its weight, plus what it lacks: delta - s B A_text x.

    That is 0 except at media tokens and, for "text_query", at instruction tokens: only there A_text and B are applied.
    Without gradients `result` is written to. Arguments as `moka_delta`.
    """
    options = {"scaling": scaling, "interaction": interaction, **options}
    narrow = torch.eye(B.shape[1], dtype=x.dtype, device=x.device)  # in B's place: s u itself
    given = moka_delta(x, A, narrow, routing, **options)
    text_query = interaction == "text_query"
    as_text = rows_as_text(routing, text_query=text_query)
    if torch.is_grad_enabled() or torch.compiler.is_compiling():
        lacking = (given - F.linear(x, A[0]) * scaling).masked_fill(as_text.view(*routing.shape, 1), 0)
        return result + F.linear(lacking, B).to(result.dtype)
    rows, s_u, out = x.flatten(0, 1), given.flatten(0, 1), result.flatten(0, 1)
    for start, stop in stretches_that_differ(routing, text_query=text_query):
        stretch = slice(start, stop)
        lacking = torch.addmm(s_u[stretch], rows[stretch], A[0].t(), alpha=-scaling).masked_fill_(as_text[stretch], 0)
        out[stretch].add_(lacking @ B.t()) if out.dtype != x.dtype else out[stretch].addmm_(lacking, B.t())
    return out.view(result.shape)


def check_options(interaction: str, instruction_span: str, impl: str) -> None:
    """Raises ValueError, naming the option, where a value is unknown or two do not go together."""
    known = {
        "interaction": (interaction, INTERACTIONS),
        "instruction_span": (instruction_span, INSTRUCTION_SPANS),
        "impl": (impl, IMPLEMENTATIONS),
    }
    for name, (value, choices) in known.items():
        if value not in choices:
            raise ValueError(f"`{name}`: expected one of {', '.join(choices)}, got {value!r}.")
    if interaction == "text_query" and instruction_span == "contiguous":
        raise ValueError(
            "`instruction_span`='contiguous' is defined for media that attend to text, not for "
            "interaction='text_query'. Use instruction_span='tokens'."
        )


def per_modality(cross_scale: float | Sequence[float], media_modalities: int) -> tuple[float, ...]:
    """`cross_scale` as one lambda per media modality. Raises ValueError where the count differs."""
    if isinstance(cross_scale, int | float):
        return (float(cross_scale),) * media_modalities
    scales = tuple(float(scale) for scale in cross_scale)
    if len(scales) != media_modalities:
        raise ValueError(
            f"`cross_scale`: expected one number or {media_modalities}, one per media modality, got {len(scales)}."
        )
    return scales


def _check_shapes(x: Tensor, A: Tensor, B: Tensor, routing: Routing) -> None:
    if x.dim() != 3 or 0 in x.shape[:2]:
        raise ValueError(f"`x`: expected [batch, sequence, in_features] with no empty dimension, got {list(x.shape)}.")
    if A.dim() != 3 or A.shape[2] != x.shape[2]:
        raise ValueError(f"`A`: expected [modalities, rank, {x.shape[2]}], got {list(A.shape)}.")
    if B.dim() != 2 or B.shape[1] != A.shape[1]:
        raise ValueError(f"`B`: expected [out_features, {A.shape[1]}], got {list(B.shape)}.")
    if routing.shape != x.shape[:2]:
        raise ValueError(
            f"`routing` describes {list(routing.shape)} tokens, but the layer got {list(x.shape[:2])} "
            "([batch, sequence]). Pass the routing of this very input."
        )
    if routing.modalities is not None and len(routing.modalities) > A.shape[0]:
        raise ValueError(f"`A` holds {A.shape[0]} matrices, but the routing names {routing.modalities}.")
