"""A recipe's words in those of the transformers Trainer."""

from collections.abc import Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any

import torch
from transformers import TrainingArguments

from moka_peft.training.processes import world_size


def trainer_arguments(
    output_dir: Path,
    *,
    seed: int,
    steps: int | None,
    epochs: float | None,
    batch_size: int,
    gradient_accumulation: int,
    learning_rate: float,
    optimizer: str | None = None,
    betas: Sequence[float] = (0.9, 0.999),
    epsilon: float = 1e-8,
    scheduler: str,
    warmup_steps: int,
    warmup_ratio: float | None = None,
    weight_decay: float,
    max_grad_norm: float,
    gradient_checkpointing: bool,
    bf16: bool,
    fp16: bool = False,
    save_steps: int,
    num_workers: int,
    report_to: Sequence[str] = (),
    find_unused: bool = False,
) -> TrainingArguments:
    """The Trainer's settings; every step's loss is logged, so that a resumed run's curve has no seam.

    Every process uses every trained module in every batch (`training_collator`), so that unused weights are not looked
    for, unless `find_unused`: a tower has some whose output nothing reads (a pooling head, layers after the last one
    that features are taken from) or that it skips at random. optimizer: None takes the Trainer's own AdamW, which is
    fused where torch has that.
    """
    on_gpu = torch.cuda.is_available()
    return TrainingArguments(
        output_dir=str(output_dir),
        max_steps=steps or -1,
        num_train_epochs=epochs or 1,
        per_device_train_batch_size=batch_size,
        gradient_accumulation_steps=gradient_accumulation,
        learning_rate=learning_rate,
        adam_beta1=betas[0],
        adam_beta2=betas[1],
        adam_epsilon=epsilon,
        lr_scheduler_type=scheduler,
        warmup_steps=warmup_steps if warmup_ratio is None else warmup_ratio,  # below 1 it is a share of all steps
        weight_decay=weight_decay,
        max_grad_norm=max_grad_norm,
        bf16=bf16,
        fp16=fp16,
        save_steps=save_steps,
        save_total_limit=None,
        dataloader_num_workers=num_workers,
        dataloader_pin_memory=on_gpu,
        logging_steps=1,
        logging_nan_inf_filter=False,
        seed=seed,
        data_seed=seed,
        remove_unused_columns=False,
        label_names=["labels"],
        report_to=list(report_to) or "none",
        run_name=output_dir.parent.name,
        disable_tqdm=True,
        use_cpu=not on_gpu,
        ddp_find_unused_parameters=find_unused if world_size() > 1 else None,
        ddp_backend="gloo" if world_size() > 1 and not on_gpu else None,
        **({"optim": optimizer} if optimizer else {}),
        **_checkpointing(gradient_checkpointing),
    )


def _checkpointing(on: bool) -> dict[str, Any]:
    """Gradient checkpointing by the name that this transformers has for it: 5.23 renamed it."""
    names = {field.name for field in fields(TrainingArguments)}
    name = "activation_checkpointing" if "activation_checkpointing" in names else "gradient_checkpointing"
    return {name: True, f"{name}_kwargs": {"use_reentrant": False}} if on else {}
