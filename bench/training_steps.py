"""Training steps of an adapter under gradient checkpointing, and what their gradients must look like."""

from __future__ import annotations

import math
from typing import Any

import torch
from meter import Meter
from peft import PeftModel
from torch import Tensor, nn
from transformers import PreTrainedModel

LEARNING_RATE = 1e-4


def run_base(model: PreTrainedModel, batch: dict[str, Tensor], steps: int, device: str) -> dict[str, Any]:
    """Forward alone on the frozen base, without gradients: what an adapter's cost adds to."""
    meter, losses = Meter(device), []
    with torch.no_grad():
        for _ in range(steps):
            losses.append(meter.run(lambda: model(**batch, use_cache=False).loss).item())
    return {"losses": losses, "second_step_seconds": meter.seconds[1], **meter.facts()}


def run_adapter(model: PeftModel, batch: dict[str, Tensor], steps: int, device: str) -> dict[str, Any]:
    """AdamW steps on the adapter. The gradients told of are those of the last step.

    In a first step B is zero and so are the gradients of A: at least two steps are needed.
    """
    meter, losses = Meter(device), []
    model.train()
    trained = {name: p for name, p in model.named_parameters() if p.requires_grad}
    optimizer = torch.optim.AdamW(trained.values(), lr=LEARNING_RATE)

    def step() -> Tensor:
        optimizer.zero_grad()
        loss = model(**batch, use_cache=False).loss
        loss.backward()
        optimizer.step()
        return loss.detach()

    for _ in range(steps):
        losses.append(meter.run(step).item())
    model.eval()
    return {
        "trained_parameters": sum(p.numel() for p in trained.values()),
        "adapter_dtypes": sorted({str(p.dtype).removeprefix("torch.") for p in trained.values()}),
        "losses": losses,
        "second_step_seconds": meter.seconds[1],
        **meter.facts(),
        "gradients": look_at_gradients(trained, layers=model.config.get_text_config().num_hidden_layers),
    }


def look_at_gradients(trained: dict[str, nn.Parameter], layers: int) -> dict[str, Any]:
    """How many gradients there are, and the names of those that are missing, not finite, or zero without a reason."""
    gradients = {name: p.grad for name, p in trained.items()}
    unused = [name for name in trained if is_unused(name, layers - 1)]
    zero = [name for name, g in gradients.items() if g is not None and not g.any()]
    return {
        "count": len(gradients),
        "missing": [name for name, g in gradients.items() if g is None],
        "not_finite": [name for name, g in gradients.items() if g is not None and not g.isfinite().all()],
        "zero_by_construction": len(unused),
        "zero": [name for name in zero if name not in unused],
    }


def is_unused(name: str, last_layer: int) -> bool:
    """Whether this A reaches no loss: in the last layer, media act on answers through their keys and values alone."""
    of_media = "moka_A_" in name and "moka_A_text" not in name
    return of_media and f".layers.{last_layer}." in name and ".k_proj." not in name and ".v_proj." not in name


def problems(run: dict[str, Any]) -> list[str]:
    """What must not be: losses that are not finite, gradients that are missing, not finite or zero."""
    found = [f"loss {loss}" for loss in run.get("losses", []) if not math.isfinite(loss)]
    for kind in ("missing", "not_finite", "zero"):
        found += [f"gradient {kind}: {name}" for name in run.get("gradients", {}).get(kind, [])]
    return found
