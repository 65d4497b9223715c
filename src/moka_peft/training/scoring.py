"""A run's held-out questions, answered before, during and after training."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from rich.console import Console
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from moka_peft.data import Collator, Sample
from moka_peft.training.answers import generate_answers, score_answers


@dataclass(frozen=True)
class HeldOut:
    """The held-out samples of a run and how they are answered."""

    processor: Any
    collator: Collator
    samples: Sequence[Sample]
    batch_size: int
    max_new_tokens: int
    console: Console

    def score(self, model: Any, when: str) -> dict[str, dict[str, Any]]:
        """Scores the model and shows the accuracy; empty without held-out samples."""
        if not self.samples:
            return {}
        answers = generate_answers(
            model,
            self.processor,
            self.collator.collate_prompts,
            self.samples,
            batch_size=self.batch_size,
            max_new_tokens=self.max_new_tokens,
        )
        scores = score_answers(self.samples, answers)
        shown = ", ".join(f"{group} {score['accuracy']:.1%}" for group, score in scores.items())
        self.console.print(f"accuracy {when}: {shown}", soft_wrap=True)
        return scores


class HeldOutScoring(TrainerCallback):
    """Scores the held-out questions every `steps` steps; the Trainer's log keeps the result for a resumed run."""

    def __init__(self, held_out: HeldOut, steps: int):
        self.held_out, self.steps = held_out, steps

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        if state.global_step % self.steps == 0 and state.global_step < state.max_steps:
            scores = self.held_out.score(kwargs["model"], f"at step {state.global_step}")
            state.log_history.append({"step": state.global_step, "scores": scores})  # pyright: ignore
