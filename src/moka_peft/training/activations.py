"""Activation checkpointing outside a Trainer, which has settings of its own for it."""

from typing import Any


def enable_checkpointing(model: Any) -> None:
    """Non-reentrant, under the name that this transformers has for it; before an adapter, so that PEFT sees it."""
    options = {"use_reentrant": False}
    if hasattr(model, "activation_checkpointing_enable"):  # since transformers 5.23
        model.activation_checkpointing_enable(activation_checkpointing_kwargs=options)
    else:
        model.gradient_checkpointing_enable(gradient_checkpointing_kwargs=options)
