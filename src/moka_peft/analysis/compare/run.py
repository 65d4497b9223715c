"""Runs the cells of a comparison that are not finished, alone or in several processes, and reads what they came to."""

import fcntl
import os
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from math import inf
from pathlib import Path

import torch
from rich.console import Console

from moka_peft.analysis.compare.cells import Cell, Grid
from moka_peft.analysis.compare.progress import GridProgress
from moka_peft.analysis.compare.results import RESULT, Result, Row, Table, read_result
from moka_peft.analysis.compare.workers import Failure, Job, attempt, in_time, run_in_processes

CELLS, FAILURES, LOGS, LOCK = "cells", "failures", "logs", "compare.lock"


def run_grid(
    grid: Grid, out: Path, *, processes: int = 1, minutes: float = inf, console: Console | None = None
) -> list[Failure]:
    """Runs what is not finished in the folder `out`, in this process or in several, and gives what failed.

    minutes: from now, after which no run begins; those that have begun end.
    Raises OSError where `out` cannot be written or another comparison is at work in it.
    """
    until = time.monotonic() + 60 * minutes
    (out / CELLS).mkdir(parents=True, exist_ok=True)
    with _only_one(out):
        folders = cell_folders(grid.cells, out)
        left = [cell for cell in grid.cells if not (folders[cell.identity] / RESULT).is_file()]
        jobs = [Job(cell, folders[cell.identity], out / FAILURES) for cell in left]
        with GridProgress(console or Console(), len(grid.cells), len(left)) as progress:
            return [found for found in progress.follow(_run(jobs, processes, out, until)) if isinstance(found, Failure)]


def _run(jobs: Sequence[Job], processes: int, out: Path, until: float) -> Iterator[Result | Failure]:
    if processes == 1 and torch.cuda.device_count() < 2:  # of several GPUs the Trainer would take all for one run
        return map(attempt, in_time(jobs, until))
    chosen = next((job.cell.recipe.training.num_threads for job in jobs), None)
    threads = None if chosen or processes == 1 else max(1, (os.cpu_count() or 1) // processes)
    return run_in_processes(jobs, processes, threads, out / LOGS, until)


def cell_folders(cells: Sequence[Cell], out: Path) -> dict[str, Path]:
    """Identity of a run -> its folder: where it is already, whatever another comparison called it."""
    there = {path.name.rpartition("-")[2]: path for path in sorted((out / CELLS).glob("*-*")) if path.is_dir()}
    return {cell.identity: there.get(cell.identity, out / CELLS / cell.name) for cell in cells}


def read_tables(grid: Grid, out: Path, baseline: str) -> tuple[list[Table], int]:
    """The tables of what is finished, and how many runs are not. Rows without a result are left out."""
    folders = cell_folders(grid.cells, out)
    results = {name: read_result(folder) for name, folder in folders.items()}
    tables = []
    for planned in grid.tables:
        rows = []
        for row in planned.rows:
            found = {cell.seed: (cell, results[cell.identity]) for cell in row.cells}
            done = {seed: _as_in(cell, result) for seed, (cell, result) in found.items() if result is not None}
            rows += [Row(row.label, row.variant, row.value, done)] if done else []
        tables.append(Table(planned.name, planned.axis, baseline, tuple(rows)))
    return tables, sum(result is None for result in results.values())


def _as_in(cell: Cell, result: Result) -> Result:
    """A result as this comparison calls it: another one, with another recipe, may have made the run."""
    return replace(result, variant=cell.variant, settings=cell.settings)


@contextmanager
def _only_one(out: Path) -> Iterator[None]:
    """Keeps other comparisons out of a folder; the lock ends with this process, however that ends."""
    with (out / LOCK).open("a+", encoding="utf-8") as file:
        try:
            fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except (BlockingIOError, PermissionError) as error:  # other errors are of folders that cannot be locked
            file.seek(0)
            raise OSError(
                f"`out` is in use: the comparison of process {file.read().strip()} runs in {out}. Wait for its end, "
                "or choose another folder."
            ) from error
        file.truncate(0)
        file.write(str(os.getpid()))
        file.flush()
        yield
