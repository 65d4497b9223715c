"""Plan: which A every token of a forward takes, derived once from its Routing on the host.

Tokens are counted flat, T = batch x sequence.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from .facts import derived
from .routing import Routing


@dataclass(frozen=True, eq=False)
class Plan:
    """Which A every token takes.

    `modality` [T] int64, -1 padding. `own` [T] int64: t M + modality (text's for padding), a row of [T M, r].
    `order` [N] int64: the real tokens' rows, sorted by modality, in their own order within one; those of modality m are
    order[bounds[m]:bounds[m + 1]]. `lengths` and `values`: runs of neighbours of one modality, padding's (-1) included.
    """

    modality: Tensor
    own: Tensor
    order: Tensor
    bounds: tuple[int, ...]
    lengths: tuple[int, ...]
    values: tuple[int, ...]
    has_padding: bool


def plan_of(routing: Routing, modalities: int) -> Plan:
    """The plan of `routing` for an adapter of `modalities` A's."""
    return derived(routing, ("plan", modalities), lambda: _plan(routing, modalities))


def _plan(routing: Routing, modalities: int) -> Plan:
    modality = routing.on_host()[0].flatten()
    sorted_modality, order = modality.sort(stable=True)
    counts = torch.bincount(modality + 1, minlength=modalities + 1).tolist()
    if len(counts) > modalities + 1:
        raise ValueError(
            f"`routing` holds modality {len(counts) - 2}, but the adapter has {modalities} (0 is text). Name the "
            "integers: Routing(modality, turn, modalities=(...))."
        )
    bounds = [0]
    for count in counts[1:]:
        bounds.append(bounds[-1] + count)
    values, lengths = torch.unique_consecutive(modality, return_counts=True)
    device = routing.modality.device
    own = torch.arange(len(modality), device="cpu") * modalities + modality.clamp(min=0)
    return Plan(
        modality=routing.modality.flatten(),
        own=own.to(device),
        order=order[counts[0] :].to(device),
        bounds=tuple(bounds),
        lengths=tuple(lengths.tolist()),
        values=tuple(values.tolist()),
        has_padding=counts[0] > 0,
    )
