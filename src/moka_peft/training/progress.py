"""What a run shows while it trains: step, loss, rates and time left; plain lines where there is no terminal."""

import time
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

PLAIN_SECONDS = 15.0


class TrainingProgress(TrainerCallback):
    """Shows the progress of a Trainer on `console`; where that is no terminal, a line every 15 seconds.

    Counts the samples of all processes; the tokens are those of this process times their number. A context manager:
    leaving it takes the bar off the terminal, also after an error.
    """

    def __init__(self, console: Console):
        self.console = console
        self.bar: Progress | None = None
        self.trainer: Any = None
        self.started = self.shown = 0.0
        self.first_step = 0
        self.loss = self.learning_rate = float("nan")

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        self.started = self.shown = time.monotonic()
        self.first_step = state.global_step
        if self.console.is_terminal:
            self.bar = Progress(
                TextColumn("training"), BarColumn(), MofNCompleteColumn(), TextColumn("{task.description}"),
                TimeRemainingColumn(), console=self.console,
            )  # fmt: skip
            self.bar.add_task("", total=state.max_steps, completed=state.global_step)
            self.bar.start()

    def on_log(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        logs = kwargs.get("logs") or {}
        if "loss" in logs:
            self.loss, self.learning_rate = float(logs["loss"]), float(logs.get("learning_rate", "nan"))
            self._show(
                state, args.train_batch_size * args.gradient_accumulation_steps * args.world_size, args.world_size
            )

    def __enter__(self) -> "TrainingProgress":
        return self

    def __exit__(self, *_: object) -> None:
        if self.bar is not None:
            self.bar.stop()

    def _show(self, state: TrainerState, samples_per_step: int, processes: int) -> None:
        now = time.monotonic()
        seconds = max(now - self.started, 1e-9)
        rate = (state.global_step - self.first_step) / seconds
        plan = getattr(self.trainer, "plan", None)
        counted = "rows" if plan is not None and plan.counts_rows else "samples"
        text = f"loss {self.loss:.3f}, lr {self.learning_rate:.1e}, {rate * samples_per_step:.1f} {counted}/s"
        if self.trainer is not None:
            text += f", {self.trainer.tokens_seen * processes / seconds:.0f} tokens/s"
        if self.bar is not None:
            self.bar.update(self.bar.task_ids[0], completed=state.global_step, description=text)
        elif now - self.shown >= PLAIN_SECONDS or state.global_step == state.max_steps:
            left = (state.max_steps - state.global_step) / rate
            self.console.print(f"step {state.global_step}/{state.max_steps}, {text}, {left:.0f} s left", soft_wrap=True)
            self.shown = now
