"""What a comparison shows while it runs: a line for each run, how many are done, and the time left."""

import time
from collections.abc import Iterable, Iterator

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn

from moka_peft.analysis.compare.results import Result
from moka_peft.analysis.compare.workers import Failure


class GridProgress:
    """A bar on a terminal; everywhere a line per run. A context manager. total: of all runs; left: of those to run."""

    def __init__(self, console: Console, total: int, left: int):
        self.console, self.total, self.left = console, total, left
        self.bar = Progress(
            TextColumn("runs"), BarColumn(), MofNCompleteColumn(), TextColumn("{task.description}"),
            console=console, disable=not console.is_terminal,
        )  # fmt: skip

    def __enter__(self) -> "GridProgress":
        done = self.total - self.left
        self.console.print(f"{self.total} runs, {done} of them finished earlier", soft_wrap=True)
        self.task = self.bar.add_task("", total=self.total, completed=done)
        self.bar.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.bar.stop()

    def follow(self, found: Iterable[Result | Failure]) -> Iterator[Result | Failure]:
        """Shows each run as it ends, and passes it on."""
        start = time.monotonic()
        for number, ended in enumerate(found, start=1):
            each = (time.monotonic() - start) / number
            remaining = f"{(self.left - number) * each / 60:.0f} min left"
            self.bar.update(self.task, advance=1, description=remaining)
            place = f"{self.total - self.left + number}/{self.total}"
            self.console.print(f"{place} {describe(ended)}; {remaining}", soft_wrap=True, markup=False)
            yield ended


def describe(ended: Result | Failure) -> str:
    if isinstance(ended, Failure):
        return f"{ended.cell.name} failed: {ended.error}"
    return f"{ended.cell}: {ended.metric} {ended.score:.3f}, {ended.seconds:.0f} s of training"
