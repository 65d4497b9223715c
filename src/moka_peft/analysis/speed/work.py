"""One repetition of what is timed: a layer's forward and backward, a model's training step."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from torch import Tensor, nn


def forward_backward(
    layer: nn.Module,
    x: Tensor,
    gradient: Tensor,
    context: Callable[[], AbstractContextManager[Any]] = nullcontext,
) -> Callable[[], None]:
    """Forward and backward of one layer inside a network: x takes a gradient, the output's is given."""
    x = x.detach().requires_grad_()
    trained = [parameter for parameter in layer.parameters() if parameter.requires_grad]

    def work() -> None:
        for tensor in (x, *trained):
            tensor.grad = None
        with context():
            output = layer(x)
        output.backward(gradient)

    return work


def training_step(model: Any, inputs: Mapping[str, Any], learning_rate: float = 1e-5) -> Callable[[], None]:
    """Forward, loss, backward and AdamW on what `model` trains; a frozen one computes its input's gradient alone.

    The embedding's output takes a gradient in every model alike, as `enable_input_require_grads` sees to.
    """
    model.enable_input_require_grads()
    model.train()
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    optimizer = torch.optim.AdamW(trained, lr=learning_rate, fused=True) if trained else None  # the Trainer's default

    def step() -> None:
        if optimizer is not None:
            optimizer.zero_grad()
        model(**inputs, use_cache=False).loss.backward()
        if optimizer is not None:
            optimizer.step()

    return step
