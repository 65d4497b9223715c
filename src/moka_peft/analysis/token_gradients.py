"""The gradient of an adapter's matrices, split exactly by the modality of the tokens that it comes through."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from moka_peft.analysis.adapted_layers import adapted_layers, adapter_parameters
from moka_peft.data.collator import IGNORED
from moka_peft.routing import Routing
from moka_peft.tuner.channel import RoutingChannel, RunningForward
from moka_peft.tuner.labels import labels_with_loss
from moka_peft.tuner.rows import routing_of

Gradients = dict[str, Tensor]  # of one layer: name of a matrix -> [modalities, *its shape]


@dataclass(frozen=True, eq=False)
class SplitGradients:
    """Of one sample: how many tokens of each modality it has, and layer -> its gradients."""

    tokens: list[int]
    layers: dict[str, Gradients]


@dataclass(frozen=True, eq=False)
class Call:
    """One call of an adapted layer: x [..., I], output [..., O], the routing [R, S] of its tokens, and that of all."""

    name: str
    layer: Any
    x: Tensor
    output: Tensor
    routing: Routing
    whole: Routing


def split_gradients(
    model: Any, channel: RoutingChannel, adapter: str, batch: Mapping[str, Any], modalities: int
) -> Iterator[SplitGradients]:
    """For each sample of a training batch the gradients of its loss by modality.

    A token's part is what reaches a matrix through that token's own output: of the loss's gradient g at the output of a
    layer the rows of other modalities are zeroed, and the layer alone is differentiated again. The parts of all
    modalities sum to the gradient. The loss is the mean over the sample's answer tokens. The model is to be in eval
    mode: with no dropout, and without what some methods add to the gradient while they train.
    channel: as `routing_of_forwards` gives it.
    """
    layers = adapted_layers(model)
    weights = [weight for layer in layers.values() for weight in adapter_parameters(layer, adapter).values()]
    with torch.enable_grad(), _requiring_gradients(weights):
        with _recording(layers, channel, adapter) as calls:
            losses, routed = answer_losses(model, batch), calls[0].whole
        outputs = [call.output for call in calls]
        given = torch.autograd.grad(losses.sum(), outputs, allow_unused=True)
        used = [(call, g) for call, g in zip(calls, given, strict=True) if g is not None]
        for sample in range(len(losses)):
            tokens = [int((routed.modality[sample] == number).sum()) for number in range(modalities)]
            found = _of_sample(used, channel, adapter, slice(sample, None, len(losses)), modalities)
            yield SplitGradients(tokens, found)


def answer_losses(model: Any, batch: Mapping[str, Any]) -> Tensor:
    """The mean loss on each sample's answer tokens [B]."""
    labels = labels_with_loss(model, batch)[:, 1:]
    logits = model(**{key: value for key, value in batch.items() if key != "labels"}, use_cache=False).logits[:, :-1]
    logits = logits.to(torch.promote_types(logits.dtype, torch.float32)).transpose(1, 2)  # [B, vocabulary, S - 1]
    losses = F.cross_entropy(logits, labels.to(logits.device), ignore_index=IGNORED, reduction="none")
    return losses.sum(1) / (labels != IGNORED).sum(1).clamp(min=1).to(losses.device)


@contextmanager
def _requiring_gradients(weights: list[nn.Parameter]) -> Iterator[None]:
    """An adapter that was opened for inference is frozen."""
    before = [weight.requires_grad for weight in weights]
    try:
        for weight in weights:
            weight.requires_grad_(True)
        yield
    finally:
        for weight, required in zip(weights, before, strict=True):
            weight.requires_grad_(required)


@contextmanager
def _recording(layers: Mapping[str, Any], channel: RoutingChannel, adapter: str) -> Iterator[list[Call]]:
    calls: list[Call] = []

    def record(name: str, layer: Any, args: tuple, output: Tensor) -> None:
        x = args[0]
        whole = channel.read(adapter, name, x.device)
        own = routing_of(x, whole, "none", channel.logits_to_keep)
        calls.append(Call(name, layer, x.detach(), output, own, whole))

    handles = [layer.register_forward_hook(partial(record, name)) for name, layer in layers.items()]
    try:
        yield calls
    finally:
        for handle in handles:
            handle.remove()


def _of_sample(
    calls: list[tuple[Call, Tensor]], channel: RoutingChannel, adapter: str, rows: slice, modalities: int
) -> dict[str, Gradients]:
    """rows: those of one sample; a layer that sees several streams of a batch has them batch after batch."""
    found: dict[str, Gradients] = {}
    read: dict[int, Routing] = {}  # one object for all layers, which keep what follows from it there
    for call, g in calls:
        whole = call.routing
        if id(whole) not in read:
            read[id(whole)] = Routing.unchecked(whole.modality[rows], whole.turn[rows], whole.modalities, None)
        with channel.holding(RunningForward({adapter: read[id(whole)]})):
            new = _of_call(call, g.reshape(*whole.shape, -1)[rows], rows, adapter, read[id(whole)], modalities)
        old = found.get(call.name)  # of a layer that runs more than once in a forward
        found[call.name] = new if old is None else {name: old[name] + gradient for name, gradient in new.items()}
    return found


def _of_call(call: Call, g: Tensor, rows: slice, adapter: str, routing: Routing, modalities: int) -> Gradients:
    weights = adapter_parameters(call.layer, adapter)
    y = call.layer(call.x.reshape(*call.routing.shape, -1)[rows])
    parts = {name: weight.new_zeros(modalities, *weight.shape) for name, weight in weights.items()}
    for number in range(modalities):
        at = (routing.modality == number).unsqueeze(-1)
        if bool(at.any()):
            gradients = torch.autograd.grad(y, list(weights.values()), g * at, retain_graph=True, allow_unused=True)
            for name, gradient in zip(weights, gradients, strict=True):
                if gradient is not None:
                    parts[name][number] = gradient
    return parts
