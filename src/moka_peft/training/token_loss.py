"""A step's loss as the mean over its answer tokens, however the step is cut into batches and processes."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from transformers import Trainer

from moka_peft.tuner.labels import labels_with_loss


class TokenAveragedTrainer(Trainer):
    """A Trainer that weighs each batch of a step by its answer tokens, for every model.

    transformers' hands the step's token count to the model's forward instead. Qwen-VL, GLM-V and Gemma say that
    theirs takes none, and get a mean of the batches' means; Qwen2-Audio's takes it and leaves it unused, and gets
    gradients as many times too large as there are batches in a step.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.model_accepts_loss_kwargs = True  # so that the tokens of a step are counted

    def _get_num_items_in_batch(self, batch_samples: list, device: torch.device) -> Any:
        """Counts the answer tokens of a step, without those that the model itself would take out of the labels."""
        model = self.accelerator.unwrap_model(self.model)
        for batch in batch_samples:
            if "labels" in batch:
                batch["labels"] = labels_with_loss(model, batch)
        return super()._get_num_items_in_batch(batch_samples, device)

    def compute_loss(
        self,
        model: Any,
        inputs: dict[str, Any],
        return_outputs: bool = False,
        num_items_in_batch: Tensor | int | None = None,
    ) -> Any:
        """The batch's part of the step's mean, times the processes that DDP and FSDP average over.

        A loss of one's own, and label smoothing, are as in transformers' Trainer.
        """
        is_models = self.compute_loss_func is None and self.label_smoother is None and "labels" in inputs
        if num_items_in_batch is None or not is_models:
            return super().compute_loss(model, inputs, return_outputs, num_items_in_batch)  # pyright: ignore
        tokens = (inputs["labels"][..., 1:] != -100).sum()
        mean, outputs = super().compute_loss(model, inputs, return_outputs=True)
        mean = torch.where(tokens > 0, mean, 0)  # of no tokens it is no number, though its gradients are zeros
        processes = self.accelerator.num_processes if self.args.average_tokens_across_devices else 1
        of_step = torch.as_tensor(num_items_in_batch).clamp(min=1)  # 0 where no sample of a step carries loss
        loss = mean * tokens / of_step * processes
        return (loss, outputs) if return_outputs else loss
