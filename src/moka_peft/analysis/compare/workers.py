"""Processes that run one cell after another: a dead one costs its cell alone, and none outlives its parent."""

import multiprocessing
import os
import signal
import sys
import threading
import time
import traceback
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from itertools import takewhile
from math import inf
from multiprocessing.connection import Connection, wait
from pathlib import Path
from typing import Any

from moka_peft.analysis.compare.cell import run_cell
from moka_peft.analysis.compare.cells import Cell
from moka_peft.analysis.compare.results import Result


@dataclass(frozen=True)
class Job:
    cell: Cell
    folder: Path
    failures: Path


@dataclass(frozen=True)
class Failure:
    """A run that ended with an error, in one line."""

    cell: Cell
    error: str


def attempt(job: Job) -> Result | Failure:
    """Runs a cell; an error becomes a Failure, and its traceback a file in the folder `failures`."""
    trace = job.failures / f"{job.folder.name}.txt"
    try:
        result = run_cell(job.cell, job.folder)
    except Exception as error:
        with suppress(OSError):  # a full disk, which is what `error` then says
            job.failures.mkdir(parents=True, exist_ok=True)
            trace.write_text(traceback.format_exc(), encoding="utf-8")
        return Failure(job.cell, " ".join(f"{type(error).__name__}: {error} ({trace})".split()))
    trace.unlink(missing_ok=True)
    return result


def in_time(jobs: Sequence[Job], until: float) -> Iterator[Job]:
    """The jobs, one at a time, until the monotonic clock says `until`."""
    return takewhile(lambda _: time.monotonic() < until, jobs)


def run_in_processes(
    jobs: Sequence[Job], count: int, threads: int | None, logs: Path, until: float = inf
) -> Iterator[Result | Failure]:
    """What came of each job that could begin before `until`, as they end.

    threads: of the CPU for each process; logs: a folder for what they print.
    """
    logs.mkdir(parents=True, exist_ok=True)
    waiting = in_time(jobs, until)
    workers = [_Worker(number, threads, logs) for number in range(min(count, len(jobs)))]
    try:
        for worker in workers:
            worker.take(waiting)
        while busy := {worker.connection: worker for worker in workers if worker.job}:
            for ready in wait(list(busy)):
                worker = busy[ready]  # pyright: ignore[reportArgumentType]
                found = worker.outcome()
                if found is None:
                    found = worker.death()
                    workers[workers.index(worker)] = worker = _Worker(worker.number, threads, logs)
                worker.take(waiting)
                yield found
    finally:
        for worker in workers:
            worker.process.kill()
            worker.process.join()


class _Worker:
    """A process, the end of the pipe to it, and the job that it is at."""

    def __init__(self, number: int, threads: int | None, logs: Path):
        context = multiprocessing.get_context("spawn")
        self.number, self.job = number, None
        self.connection, other = context.Pipe()
        log = logs / f"worker-{number}.txt"
        self.process = context.Process(target=_work, args=(other, number, threads, log))
        self.process.start()
        other.close()  # else the end of the process would not be seen here

    def take(self, waiting: Iterator[Job]) -> None:
        """Starts the next job, if there is one."""
        self.job: Job | None = next(waiting, None)
        if self.job:
            with suppress(BrokenPipeError):  # it died already, which `outcome` finds
                self.connection.send(self.job)

    def outcome(self) -> Result | Failure | None:
        """What came of the job; None where the process died over it."""
        try:
            return self.connection.recv()
        except (EOFError, ConnectionResetError):
            return None

    def death(self) -> Failure:
        job: Any = self.job
        self.process.join()
        code = self.process.exitcode or 0
        how = f"was killed by {signal.Signals(-code).name}" if code < 0 else f"ended with code {code}"
        return Failure(job.cell, f"its process {how}")


def _work(connection: Connection, number: int, threads: int | None, log: Path) -> None:
    """Runs the cells that come through the pipe until there are no more."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent gets it, too, and ends this process
    threading.Thread(target=_die_with_parent, daemon=True).start()
    _print_to(log)
    _prepare(number, threads)
    while True:
        connection.send(attempt(connection.recv()))


def _die_with_parent() -> None:
    """Ends this process when its parent is gone, however that went: two must never train into one folder."""
    parent: Any = multiprocessing.parent_process()
    wait([parent.sentinel])
    os._exit(1)


def _print_to(log: Path) -> None:
    with log.open("a", encoding="utf-8") as file:
        for stream in (sys.stdout, sys.stderr):
            stream.flush()
            os.dup2(file.fileno(), stream.fileno())


def _prepare(number: int, threads: int | None) -> None:
    """This process's share of the machine: its number of threads, and one of the GPUs."""
    import torch
    from transformers.utils import logging

    logging.disable_progress_bar()
    if threads is not None:
        torch.set_num_threads(threads)
    if (gpus := torch.cuda.device_count()) > 1:  # does not open the GPUs yet
        names = os.environ.get("CUDA_VISIBLE_DEVICES") or ",".join(map(str, range(gpus)))
        os.environ["CUDA_VISIBLE_DEVICES"] = names.split(",")[number % gpus]
