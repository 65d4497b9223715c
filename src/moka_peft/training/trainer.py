"""The transformers Trainer of a run: a recipe's words in the Trainer's, and our callbacks on it."""

import math
from collections.abc import Callable, Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any

import torch
from transformers import (
    PrinterCallback,
    Trainer,
    TrainerCallback,
    TrainerControl,
    TrainerState,
    TrainingArguments,
)

from moka_peft.data import Sample


def build_trainer(
    model: Any,
    collator: Callable[..., Any],
    samples: Sequence[Sample],
    arguments: TrainingArguments,
    callbacks: Sequence[TrainerCallback],
) -> Trainer:
    """A Trainer that keeps its own output to itself and stops at a loss that is no number.

    Where checkpointing is on the Trainer turns the KV cache off in the model's config; a multimodal model's
    decoder has one of its own.
    """
    model.get_decoder().config.use_cache = False
    trainer = Trainer(
        model=model,
        args=arguments,
        data_collator=collator,
        train_dataset=samples,  # pyright: ignore[reportArgumentType]  # any sequence will do
        callbacks=[*callbacks, FiniteLoss()],
    )
    trainer.remove_callback(PrinterCallback)
    return trainer


class FiniteLoss(TrainerCallback):
    """Ends a run whose loss is infinite or no number: nothing after it could be right."""

    def on_log(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        loss = (kwargs.get("logs") or {}).get("loss", 0.0)
        if not math.isfinite(loss):
            raise FloatingPointError(
                f"`loss` is {loss} at step {state.global_step}: expected a number. Lower `training.learning_rate`, "
                "or train in float32."
            )


def trainer_arguments(
    output_dir: Path,
    *,
    seed: int,
    steps: int | None,
    epochs: float | None,
    batch_size: int,
    gradient_accumulation: int,
    learning_rate: float,
    scheduler: str,
    warmup_steps: int,
    weight_decay: float,
    max_grad_norm: float,
    gradient_checkpointing: bool,
    bf16: bool,
    save_steps: int,
    num_workers: int,
) -> TrainingArguments:
    """The Trainer's settings; every step's loss is logged, so that a resumed run's curve has no seam."""
    return TrainingArguments(
        output_dir=str(output_dir),
        max_steps=steps or -1,
        num_train_epochs=epochs or 1,
        per_device_train_batch_size=batch_size,
        gradient_accumulation_steps=gradient_accumulation,
        learning_rate=learning_rate,
        lr_scheduler_type=scheduler,
        warmup_steps=warmup_steps,
        weight_decay=weight_decay,
        max_grad_norm=max_grad_norm,
        bf16=bf16,
        save_steps=save_steps,
        save_total_limit=None,
        dataloader_num_workers=num_workers,
        dataloader_pin_memory=torch.cuda.is_available(),
        logging_steps=1,
        logging_nan_inf_filter=False,
        seed=seed,
        data_seed=seed,
        remove_unused_columns=False,
        label_names=["labels"],
        report_to="none",
        disable_tqdm=True,
        use_cpu=not torch.cuda.is_available(),
        **_checkpointing(gradient_checkpointing),
    )


def _checkpointing(on: bool) -> dict[str, Any]:
    """Gradient checkpointing by the name that this transformers has for it: 5.23 renamed it."""
    names = {field.name for field in fields(TrainingArguments)}
    name = "activation_checkpointing" if "activation_checkpointing" in names else "gradient_checkpointing"
    return {name: True, f"{name}_kwargs": {"use_reentrant": False}} if on else {}
