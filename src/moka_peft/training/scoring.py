"""A run's held-out questions, answered before, during and after training, by all processes together."""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

from rich.console import Console
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from moka_peft.data import Collator, Sample
from moka_peft.data.samples import text_of
from moka_peft.training import folder
from moka_peft.training.answers import generate_answers, sum_losses
from moka_peft.training.best import Stopping, best_step, is_over
from moka_peft.training.metrics import METRICS, SHARES, score_answers, value_of
from moka_peft.training.processes import gather, is_sharded, merge_shares, own_share, rank, world_size

Scores = dict[str, dict[str, Any]]


@dataclass
class HeldOut:
    """The held-out samples of a run and how they are answered; `answers`: the newest ones, of process 0."""

    processor: Any
    collator: Collator
    samples: Sequence[Sample]
    batch_size: int
    max_new_tokens: int
    console: Console
    metric: str = "exact_match"
    answers: list[str] = field(default_factory=list, init=False)

    def score(self, model: Any, when: str) -> tuple[Scores, float | None]:
        """Scores the answers, measures the loss per answer token, and shows both; nothing without samples."""
        if not self.samples:
            return {}, None
        own = [self.samples[index] for index in own_share(len(self.samples))]
        # A forward of a sharded model takes all processes: one with a batch less makes another one for the others.
        filler = [self.samples[0]] if is_sharded() and self._has_batch_less(len(own)) else []
        answers, _ = self._answer(model, own), self._answer(model, filler)
        summed, _ = self._sum_losses(model, own), self._sum_losses(model, filler)
        shares = gather((answers, summed))
        self.answers = merge_shares([share[0] for share in shares])
        scores = score_answers(self._words, self.answers, self.metric)
        loss = sum(share[1][0] for share in shares) / max(sum(share[1][1] for share in shares), 1)
        self.show(scores, loss, when)
        return scores, loss

    def write_answers(self, path: Path) -> None:
        """Writes the newest answers as JSON lines: `id`, `group`, `kind`, `question`, `reference`, `answer`, and
        `points` of `weight`; for a metric of right and wrong 0 or 1 of 1."""
        rows = []
        for sample, answer in zip(self._words, self.answers, strict=True):
            points, weight = METRICS[self.metric](sample.answer, answer)
            question = text_of(sample.messages[-2]) if len(sample.messages) > 1 else ""
            told = {"id": sample.id, "group": sample.group, "kind": sample.kind, "question": question}
            rows.append({**told, "reference": sample.answer, "answer": answer, "points": points, "weight": weight})
        folder.write_lines(path, rows)

    @cached_property
    def _words(self) -> list[Sample]:
        """The samples without their media, which are decoded whenever a sample is read."""
        return [
            replace(sample, messages=[{**message, "content": text_of(message)} for message in sample.messages])
            for sample in self.samples
        ]

    def _answer(self, model: Any, samples: Sequence[Sample]) -> list[str]:
        limits = {"batch_size": self.batch_size, "max_new_tokens": self.max_new_tokens}
        return generate_answers(model, self.processor, self.collator.collate_prompts, samples, **limits)

    def _sum_losses(self, model: Any, samples: Sequence[Sample]) -> tuple[float, int]:
        return sum_losses(model, self.collator, samples, batch_size=self.batch_size)

    def _has_batch_less(self, own: int) -> bool:
        """Whether this process makes fewer batches of its share than process 0, whose share is the largest."""
        most = -(-len(self.samples) // world_size())
        return -(-own // self.batch_size) < -(-most // self.batch_size)

    def show(self, scores: Scores, loss: float, when: str) -> None:
        """Prints one line: the metric over all and per group, and the loss."""
        name = "accuracy" if self.metric == "exact_match" else self.metric
        form = ".1%" if self.metric in SHARES else ".3f"
        shown = ", ".join(f"{group} {value_of(score):{form}}" for group, score in scores.items())
        self.console.print(f"{name} {when}: {shown}; loss {loss:.3f}", soft_wrap=True)


class HeldOutScoring(TrainerCallback):
    """Scores the held-out questions every `steps` steps, has the best step saved, and stops a run that is over.

    The results are entries of the Trainer's log, and all decisions follow from the log alone: a resumed run takes
    the same ones. best: the metric whose best step is kept; the last step is then scored, too. answers: the file
    for those of the best step.
    """

    def __init__(
        self,
        held_out: HeldOut,
        steps: int,
        best: str | None = None,
        stopping: Stopping | None = None,
        answers: Path | None = None,
    ):
        self.answers = answers
        self.held_out, self.steps, self.best, self.stopping = held_out, steps, best, stopping
        self.trainer: Any = None

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        is_last = state.global_step >= state.max_steps
        if (self.best if is_last else state.global_step % self.steps == 0) and self.held_out.samples:
            scores, loss = self.held_out.score(kwargs["model"], f"at step {state.global_step}")
            self._report(scores, loss, control)
            state.log_history.append({"step": state.global_step, "scores": scores, "held_out_loss": loss})  # pyright: ignore
            if self.best and best_step(state.log_history, self.best) == state.global_step:
                control.should_save = True
                if self.answers is not None and rank() == 0:
                    self.held_out.write_answers(self.answers)
            if self.stopping and is_over(state.log_history, self.stopping):
                control.should_training_stop = control.should_save = True

    def _report(self, scores: Scores, loss: float | None, control: TrainerControl) -> None:
        """Sends the numbers to what the run reports to; the Trainer would take that for the logging of this step."""
        if self.trainer is not None:
            values = {f"eval_{self.held_out.metric}": value_of(scores["all"]), "eval_loss": loss}
            is_due = control.should_log
            self.trainer.log({name: value for name, value in values.items() if value is not None})
            control.should_log = is_due
