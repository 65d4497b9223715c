"""The attention inside an adapter, of one row, as the paper defines it: computed from a layer's input in float64, apart
from the code that trains. MokA, arXiv 2506.05191: softmax_k( z_t . z_k / sqrt(r) ), z = A x."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from moka_peft.analysis.adapted_layers import active_adapter, adapted_layers, describe_adapter
from moka_peft.routing import TEXT, Routing
from moka_peft.tuner import MokaLinear
from moka_peft.tuner.offload import weight_of
from moka_peft.tuner.rows import routing_of


@dataclass(frozen=True, eq=False)
class RankAttention:
    """Who attends to whom in one layer: `queries` [Q] over `keys` [K], both positions in the row.

    `weights` [Q, K] float64: what a query receives is lambda times the weighted sum of the keys' z. A row sums to 1;
    for "text_query" to 1 over the keys of each modality. `reach` [Q, K]: the keys a query can attend to. `is_value`
    [Q, K]: those of them that have a z; a contiguous span also holds zeros, where it is no instruction.
    """

    queries: Tensor
    keys: Tensor
    weights: Tensor
    reach: Tensor
    is_value: Tensor


@dataclass(frozen=True)
class Settings:
    """What decides the weights; the fields are those of `MokaConfig`. `scaling`: alpha / r."""

    interaction: str
    scale_before_attention: bool
    instruction_span: str
    scaling: float


def check_has_attention(model: nn.Module) -> None:
    """Raises ValueError where no media token of the model's adapter attends to an instruction, nor the other way."""
    adapter = active_adapter(model)
    for layer in adapted_layers(model).values():
        if getattr(_options(layer, adapter), "interaction", "none") == "none":
            raise ValueError(
                f"`model`: its adapter ({describe_adapter(model)['type']}) has no attention between media and "
                "instruction: expected MokA with an interaction other than 'none'. Choose another analysis."
            )


@dataclass(eq=False)
class Captured:
    """The first row of one forward: its routing, and layer name -> attention, in the order in which layers ran."""

    routing: Routing = field(init=False)
    layers: dict[str, RankAttention] = field(default_factory=dict)


def capture_attention(model: nn.Module, inputs: Mapping[str, Any]) -> Captured:
    """The attention of the first row in one forward of `model` on `inputs`, dropout off.

    Raises ValueError where the adapter has no attention.
    """
    check_has_attention(model)
    adapter, found = active_adapter(model), Captured()
    handles = [
        layer.register_forward_pre_hook(partial(_keep, found, name, adapter), with_kwargs=True)
        for name, layer in adapted_layers(model).items()
    ]
    training = model.training
    model.eval()
    try:
        with torch.no_grad():
            model(**inputs)
    finally:
        model.train(training)
        for handle in handles:
            handle.remove()
    return found


def _keep(found: Captured, name: str, adapter: str, layer: Any, args: tuple, kwargs: dict) -> None:
    if name not in found.layers:  # a layer may run twice
        x = args[0] if args else kwargs["x"]
        found.routing = layer.channel.read(adapter, layer.name, x.device)
        found.layers[name] = _attention_of(layer, adapter, x, found.routing)


def _options(layer: Any, adapter: str) -> Any:
    return layer.options[adapter] if isinstance(layer, MokaLinear) else None


def _attention_of(layer: Any, adapter: str, x: Tensor, routing: Routing) -> RankAttention:
    options = layer.options[adapter]
    routing = routing_of(x, routing, options.interaction, layer.channel.logits_to_keep)
    row = x.detach().reshape(*routing.shape, -1)[0].to("cpu", torch.float64)
    A = [_modality_A(layer, adapter, name) for name in options.modalities]
    settings = Settings(
        options.interaction, options.scale_before_attention, options.instruction_span, layer.scaling[adapter]
    )
    return attend(row, A, routing, settings)


def _modality_A(layer: Any, adapter: str, modality: str) -> Tensor:
    """[r, I]: the modality's own A, or the one that all share."""
    own = layer._modules.get(f"moka_A_{modality}", layer._modules.get("moka_A"))
    return weight_of(own[adapter]).detach().to("cpu", torch.float64)


def attend(x: Tensor, A: list[Tensor], routing: Routing, settings: Settings) -> RankAttention:
    """The weights of one row x [S, I], the first of `routing`; `A` [r, I] per modality, "text" first."""
    modality, turn = routing.modality[0].cpu(), routing.turn[0].cpu()
    z = x.new_zeros(len(x), A[0].shape[0])
    for index, a in enumerate(A):
        z[modality == index] = x[modality == index] @ a.T
    if settings.scale_before_attention:
        z = z * settings.scaling
    is_media, is_instruction = (modality > TEXT) & (turn > 0), (modality == TEXT) & (turn > 0)
    text_asks = settings.interaction == "text_query"
    queries = (is_instruction if text_asks else is_media).nonzero()[:, 0]
    same_turn = turn[queries, None] == turn[None]  # [Q, S]
    is_value = same_turn & (is_media if text_asks else is_instruction)
    reach = is_value
    if settings.instruction_span == "contiguous" and settings.interaction == "cross_attention":
        reach = _filled(is_value)
    scores = torch.where(is_value, z[queries] @ z.T / math.sqrt(z.shape[1]), 0.0)
    if settings.interaction == "mean":
        scores = torch.zeros_like(scores)
    groups = [modality == m for m in range(1, len(A))] if text_asks else [torch.ones_like(is_media)]
    weights = sum((_softmax(scores, reach & group) for group in groups), torch.zeros_like(scores))
    asks, keys = reach.any(1), reach.any(0).nonzero()[:, 0]
    return RankAttention(queries[asks], keys, *(each[asks][:, keys] for each in (weights, reach, is_value)))


def _filled(mask: Tensor) -> Tensor:
    """[Q, S]: each row True from its first to its last True."""
    return (mask.cumsum(1) > 0) & (mask.flip(1).cumsum(1).flip(1) > 0)


def _softmax(scores: Tensor, mask: Tensor) -> Tensor:
    """Over the columns in `mask`; 0 elsewhere, and in rows without any."""
    return torch.softmax(scores.masked_fill(~mask, -math.inf), 1).nan_to_num(0.0)
