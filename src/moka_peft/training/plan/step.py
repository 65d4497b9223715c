"""One training step on the meta device: what it holds, from the encoders to the last gradient."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import nullcontext
from dataclasses import asdict, dataclass
from typing import Any

import torch
from peft import PeftModel
from torch import Tensor

from moka_peft.routing import Routing
from moka_peft.routing.placeholders import modality_of
from moka_peft.training.activations import enable_checkpointing
from moka_peft.training.plan.live import LiveBytes
from moka_peft.training.plan.meta import as_on_gpu
from moka_peft.tuner import use_routing
from moka_peft.tuner.config import RoutedConfig

INSTRUCTION_SHARE = 0.5
"""Of a sample's text; the rest is its template and its answer. What is kept hardly depends on it."""


@dataclass(frozen=True)
class Activations:
    """Bytes that one micro-batch holds beside weights, gradients and optimizer states.

    encoders: the most while frozen encoders run, given back at once. projectors, decoder, logits: what stays for the
    backward when each is done (decoder: with gradient checkpointing the layers' inputs). peak: the most at any time;
    with_gradients: the same where those of this batch count from when they are made.
    """

    encoders: int
    projectors: int
    decoder: int
    logits: int
    peak: int
    with_gradients: int

    def to_dict(self) -> dict[str, int]:
        return asdict(self)


@dataclass(frozen=True)
class Batch:
    """A micro-batch: `rows` of `length` tokens. media: by kind ("image", ...) the tensor of all rows' media; of one
    row, `tokens` by kind. masked: whether attention takes a mask, as rows differ in length or hold several samples."""

    rows: int
    length: int
    media: Mapping[str, Tensor]
    tokens: Mapping[str, int]
    masked: bool = True


def count_activations(
    model: PeftModel, batch: Batch, *, checkpointing: bool = False, autocast: str | None = None
) -> Activations:
    """Runs forward and backward of an adapted model on its own device, the meta device for instance.

    autocast: the dtype that Linears compute in, where it is not that of their weights.
    """
    base: Any = model.get_base_model()
    if checkpointing:
        enable_checkpointing(base)
    model.train()
    given = [*model.parameters(), *model.buffers(), *batch.media.values()]
    trained = [weight for weight in model.parameters() if weight.requires_grad]
    device = next(model.parameters()).device
    ids = torch.zeros(batch.rows, batch.length, dtype=torch.int64, device=device)
    live = LiveBytes([*given, ids])
    lower = getattr(torch, autocast) if autocast else None
    with as_on_gpu(lower) if device.type == "meta" else nullcontext(), live:
        embeds = _embed(base, ids, batch)
        encoders, after_media = live.peak(), live.now
        hidden = _decode(model, base, embeds, batch)
        del embeds
        after_decoder = live.now
        loss = _loss(base, hidden, ids)
        after_loss = live.now
        torch.autograd.backward(loss)
        del hidden, loss
    peak = live.peak(without=[weight.grad for weight in trained if weight.grad is not None])
    for weight in trained:
        weight.grad = None
    return Activations(
        encoders, after_media, after_decoder - after_media, after_loss - after_decoder, peak, live.peak()
    )


def _embed(base: Any, ids: Tensor, batch: Batch) -> Tensor:
    """The decoder's input [B, S, D] with the embeddings of media in it, as a composite's forward makes it."""
    embeds = base.get_input_embeddings()(ids)
    for kind, media in batch.media.items():
        found = base.embed_media(kind, media).flatten(0, 1)
        mask = torch.zeros_like(ids, dtype=torch.bool)
        embeds = embeds.masked_scatter(mask[..., None], found.to(embeds.dtype))
    return embeds


def _decode(model: PeftModel, base: Any, embeds: Tensor, batch: Batch) -> Tensor:
    """The decoder's last states [B, S, D]."""
    mask = None
    if batch.masked:
        mask = torch.ones(batch.rows, 1, batch.length, batch.length, dtype=torch.bool, device=embeds.device)
    config: Any = model.peft_config["default"]
    routing = routing_of_rows(batch, config.modalities) if isinstance(config, RoutedConfig) else None
    with use_routing(model, routing) if routing is not None else nullcontext():
        output = base.get_decoder()(inputs_embeds=embeds, attention_mask=mask, use_cache=False)
    return output.last_hidden_state


def _loss(base: Any, hidden: Tensor, labels: Tensor) -> Tensor:
    """The loss of all rows; models make logits of every position, and shift them in float32."""
    logits = base.get_output_embeddings()(hidden)
    text = getattr(base, "text_model", base)
    return text.loss_function(logits, labels, base.config.get_text_config().vocab_size)


def routing_of_rows(batch: Batch, modalities: tuple[str, ...]) -> Routing:
    """Rows of one turn: their media, one kind after another, then the instruction, then the answer; on the CPU."""
    modality = torch.zeros(batch.rows, batch.length, dtype=torch.int64)
    turn, start = modality.clone(), 1
    for kind, tokens in batch.tokens.items():
        modality[:, start : start + tokens] = modalities.index(modality_of(kind))
        start += tokens
    end = start + max(round((batch.length - start) * INSTRUCTION_SHARE), 1)
    turn[:, 1:end] = 1
    return Routing(modality, turn, modalities)
