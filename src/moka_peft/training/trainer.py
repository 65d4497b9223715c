"""The transformers Trainer of a run: learning rates per part, and our callbacks on it."""

import math
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

from accelerate.utils import DistributedType
from transformers import (
    PrinterCallback,
    Trainer,
    TrainerCallback,
    TrainerControl,
    TrainerState,
    TrainingArguments,
)
from transformers.trainer_utils import seed_worker

from moka_peft.data import Collator, Sample, SkippingCollator
from moka_peft.data.epochs import EpochBatches, EpochLoader, EpochPlan, WithoutLoss
from moka_peft.training.parts import find_parts, part_of
from moka_peft.training.processes import is_sharded, world_size
from moka_peft.training.token_loss import TokenAveragedTrainer


class MokaTrainer(TokenAveragedTrainer):
    """A Trainer whose parts learn at rates of their own, and whose batches follow a plan.

    rates: {"projectors": 1e-5, "towers": 1e-6}; the adapter, and what has none, learn at `learning_rate`. plan: which
    process reads which samples when; None leaves that to the Trainer. `tokens_seen` counts the tokens of this process
    since it started, padding left out where the batch says what is padding.
    """

    def __init__(
        self, *args: Any, rates: Mapping[str, float] | None = None, plan: EpochPlan | None = None, **kwargs: Any
    ):
        super().__init__(*args, **kwargs)
        self.rates, self.plan = dict(rates or {}), plan
        self.tokens_seen = 0

    def create_optimizer(self, *args: Any, **kwargs: Any) -> Any:
        """As the Trainer's, with its rules for weight decay; each of its groups is divided by part."""
        is_new = self.optimizer is None
        optimizer = super().create_optimizer(*args, **kwargs)
        if is_new and self.rates:
            model: Any = args[0] if args else kwargs.get("model") or self.model
            self._divide_groups(optimizer, model)
        return optimizer

    def _divide_groups(self, optimizer: Any, model: Any) -> None:
        parts = find_parts(self.accelerator.unwrap_model(self.model).get_base_model())
        part = {id(parameter): part_of(name, parts) for name, parameter in model.named_parameters()}
        groups = []
        for group in optimizer.param_groups:
            for name in dict.fromkeys(part[id(parameter)] for parameter in group["params"]):
                own = [parameter for parameter in group["params"] if part[id(parameter)] == name]
                groups.append({**group, "params": own, "lr": self.rates.get(name, group["lr"]), "part": name})
        optimizer.param_groups[:] = groups

    def get_train_dataloader(self) -> Any:
        """The loader of this process's own batches; accelerate, which would deal them out again, does not see it."""
        if self.plan is None:
            return super().get_train_dataloader()
        samples: Any = self.train_dataset
        workers, args = self.args.dataloader_num_workers, self.args
        return EpochLoader(
            WithoutLoss(samples),
            batch_sampler=EpochBatches(self.plan, args.process_index),
            collate_fn=self.data_collator,
            num_workers=workers,
            pin_memory=args.dataloader_pin_memory,
            prefetch_factor=args.dataloader_prefetch_factor,
            worker_init_fn=partial(seed_worker, num_workers=workers, rank=args.process_index),
        )

    def training_step(self, model: Any, inputs: dict[str, Any], *args: Any, **kwargs: Any) -> Any:
        mask = inputs.get("attention_mask")
        self.tokens_seen += inputs["input_ids"].numel() if mask is None else int(mask.sum())
        return super().training_step(model, inputs, *args, **kwargs)


def build_trainer(
    model: Any,
    collator: Collator | SkippingCollator,
    samples: Sequence[Sample],
    arguments: TrainingArguments,
    callbacks: Sequence[TrainerCallback],
    rates: Mapping[str, float] | None = None,
    plan: EpochPlan | None = None,
) -> MokaTrainer:
    """A Trainer that keeps its own output to itself and stops at a loss that is no number.

    Where checkpointing is on the Trainer turns the KV cache off in the model's config; a multimodal model's
    decoder has one of its own. Callbacks with an attribute `trainer` get the Trainer there.
    """
    model.get_decoder().config.use_cache = False
    trainer = MokaTrainer(
        model=model,
        args=arguments,
        data_collator=collator,
        train_dataset=samples,  # pyright: ignore[reportArgumentType]  # any sequence will do
        callbacks=[*callbacks, FiniteLoss()],
        rates=rates,
        plan=plan,
    )
    _check_sharded(trainer)
    trainer.remove_callback(PrinterCallback)
    for callback in callbacks:
        if hasattr(callback, "trainer"):
            callback.trainer = trainer  # pyright: ignore[reportAttributeAccessIssue]
    return trainer


def _check_sharded(trainer: Trainer) -> None:
    """Raises RuntimeError where sharding was asked for but accelerate took something else, as it does on a CPU."""
    got = trainer.accelerator.distributed_type
    if is_sharded() and world_size() > 1 and got not in (DistributedType.FSDP, DistributedType.DEEPSPEED):
        raise RuntimeError(
            f"`accelerate launch` was told to shard the model, but accelerate runs {got.value}: expected GPUs. "
            "Launch with recipes/accelerate/ddp.yaml on a CPU."
        )


class FiniteLoss(TrainerCallback):
    """Ends a run whose loss is infinite or no number: nothing after it could be right."""

    def on_log(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        loss = (kwargs.get("logs") or {}).get("loss", 0.0)
        if not math.isfinite(loss):
            raise FloatingPointError(
                f"`loss` is {loss} at step {state.global_step}: expected a number. Lower `training.learning_rate`, "
                "or train in float32."
            )
