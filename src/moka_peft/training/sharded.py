"""What a run does differently where its weights are split over processes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from torch.distributed.checkpoint.state_dict import StateDictOptions, get_model_state_dict
from transformers import Trainer


def save_adapter(trainer: Trainer, folder: Path) -> None:
    """Writes the adapter whole, as from one process; every process must call this, the first one writes.

    The Trainer's own `save_model` writes nothing under FSDP with sharded checkpoints, and with full ones it gathers
    the frozen base, too.
    """
    model: Any = trainer.accelerator.unwrap_model(trainer.model)
    state = trained_weights(trainer)
    if trainer.args.should_save:
        model.save_pretrained(folder, state_dict=state)
    trainer.accelerator.wait_for_everyone()


def trained_weights(trainer: Trainer) -> dict[str, Any] | None:
    """The trained weights whole, on the first process; None where each process holds them. All must ask together."""
    if trainer.is_fsdp_enabled:
        model: Any = trainer.accelerator.unwrap_model(trainer.model)
        options = StateDictOptions(full_state_dict=True, cpu_offload=True, ignore_frozen_params=True)
        return get_model_state_dict(model, options=options)
    engine: Any = trainer.model_wrapped
    stage = getattr(engine, "zero_optimization_stage", None)  # a run that had ended before has no engine
    if trainer.is_deepspeed_enabled and stage is not None and stage() == 3:
        return engine._zero3_consolidated_16bit_state_dict(exclude_frozen_parameters=True)
    return None
