"""What a benchmark's run shows: records done, records per second and time left; plain lines without a terminal."""

import time

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from moka_peft.training.progress import PLAIN_SECONDS


class RecordProgress:
    """Shows the records of all processes on `console`; a context manager, which takes the bar off the terminal.

    done: of earlier runs. own: records that fall to this process; the others are taken to be as far with theirs.
    """

    def __init__(self, console: Console, name: str, total: int, done: int, own: int):
        self.console, self.name, self.total, self.before, self.own = console, name, total, done, own
        self.answered = 0
        self.bar: Progress | None = None

    def __enter__(self) -> "RecordProgress":
        self.started = self.shown = time.monotonic()
        if self.console.is_terminal:
            self.bar = Progress(
                TextColumn(self.name), BarColumn(), MofNCompleteColumn(), TextColumn("{task.description}"),
                TimeRemainingColumn(), console=self.console,
            )  # fmt: skip
            self.bar.add_task("", total=self.total, completed=self.before)
            self.bar.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self.bar is not None:
            self.bar.stop()

    def advance(self, records: int) -> None:
        """Counts answered records of this process."""
        self.answered += records
        now = time.monotonic()
        new = round((self.total - self.before) * self.answered / self.own)
        rate = new / max(now - self.started, 1e-9)
        if self.bar is not None:
            self.bar.update(self.bar.task_ids[0], completed=self.before + new, description=f"{rate:.1f} records/s")
        elif now - self.shown >= PLAIN_SECONDS:
            left = (self.total - self.before - new) / rate
            line = f"{self.name}: {self.before + new}/{self.total} records, {rate:.1f} records/s, {left:.0f} s left"
            self.console.print(line, soft_wrap=True, highlight=False)
            self.shown = now
