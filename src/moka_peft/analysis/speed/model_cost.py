"""What a training step of one model costs frozen, with PEFT's LoRA and with MokA, in one interleaved run."""

from __future__ import annotations

from collections.abc import Callable
from inspect import signature
from typing import Any

import torch

from moka_peft.training.activations import enable_checkpointing

from .adapters import adapt, sharing_copy
from .chat import ChatLayout, ChatTokens
from .comparison import compare, provider_facts, rounded
from .kept import kept_bytes
from .rounds import AGAIN, measure
from .work import training_step

METHODS = ("lora", "moka")


def model_cost(
    model: Any,
    layout: ChatLayout,
    *,
    rank: int = 8,
    dropout: float = 0.0,
    checkpointing: bool = False,
    rounds: int = 15,
    attempts: int = 2,
    seed: int = 0,
    say: Callable[[str], None] | None = None,
) -> dict[str, Any]:
    """Step seconds, adapter seconds, bytes kept for the backward, and MokA over LoRA; `run.void` says what is amiss.

    The chats are random tokens of the model's vocabulary, three modalities among them; its encoders take no part.
    """
    model = getattr(model, "thinker", model).requires_grad_(False)  # a full Qwen Omni has no forward of its own
    chats = ChatTokens.of(model.config, layout.modalities)
    device = str(next(model.parameters()).device)
    inputs = with_token_types(model, chats.write(layout, seed, device))
    models = {"base": sharing_copy(model)}
    if checkpointing:
        enable_checkpointing(models["base"])
    for method in METHODS:
        models[method] = adapt(sharing_copy(models["base"]), method, chats.spec, rank=rank, dropout=dropout)
    kept, steps = {}, {}
    for name, own in models.items():
        steps[name] = training_step(own, inputs)
        kept[name] = kept_bytes(lambda own=own: own(**inputs, use_cache=False).loss, own.parameters())
    providers = {**steps, "base" + AGAIN: steps["base"]}
    run = measure(providers, rounds=rounds, warmup=2, attempts=attempts, seed=seed, device=device, say=say)
    facts = provider_facts(run.seconds)
    for name, count in kept.items():
        facts[name] |= {"kept_bytes": count, "tokens_per_second": rounded(layout.tokens / run.median(name))}
    return {
        "seed": seed,
        "dtype": str(model.dtype).removeprefix("torch."),
        "device": device,
        "rank": rank,
        "dropout": dropout,
        "checkpointing": checkpointing,
        "tokens": layout.tokens,
        "batch": layout.batch,
        "run": run.facts(),
        "providers": facts,
        "moka_over_lora": compare(run.seconds, "moka", "lora"),
    }


def with_token_types(model: Any, inputs: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """`inputs` with `token_type_ids` of text where the model's forward takes them: some train with nothing less."""
    if "token_type_ids" not in signature(model.forward).parameters:
        return inputs
    return {**inputs, "token_type_ids": torch.zeros_like(inputs["input_ids"])}
