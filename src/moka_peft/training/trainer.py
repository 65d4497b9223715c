"""The transformers Trainer of a run: learning rates per part, and our callbacks on it."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

from transformers import (
    PrinterCallback,
    Trainer,
    TrainerCallback,
    TrainerControl,
    TrainerState,
    TrainingArguments,
)

from moka_peft.data import Collator, Sample
from moka_peft.training.parts import find_parts, part_of


class MokaTrainer(Trainer):
    """A Trainer whose parts learn at rates of their own; the adapter, and what has none, at `learning_rate`.

    rates: {"projectors": 1e-5, "towers": 1e-6}. `tokens_seen` counts the tokens of this process since it started,
    padding left out where the batch says what is padding.
    """

    def __init__(self, *args: Any, rates: Mapping[str, float] | None = None, **kwargs: Any):
        super().__init__(*args, **kwargs)
        self.rates = dict(rates or {})
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

    def training_step(self, model: Any, inputs: dict[str, Any], *args: Any, **kwargs: Any) -> Any:
        mask = inputs.get("attention_mask")
        self.tokens_seen += inputs["input_ids"].numel() if mask is None else int(mask.sum())
        return super().training_step(model, inputs, *args, **kwargs)


def build_trainer(
    model: Any,
    collator: Collator,
    samples: Sequence[Sample],
    arguments: TrainingArguments,
    callbacks: Sequence[TrainerCallback],
    rates: Mapping[str, float] | None = None,
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
    )
    trainer.remove_callback(PrinterCallback)
    for callback in callbacks:
        if hasattr(callback, "trainer"):
            callback.trainer = trainer  # pyright: ignore[reportAttributeAccessIssue]
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
