"""SIGKILL at random moments of a run: the resumed ones end as the uninterrupted one does, bit for bit."""

from __future__ import annotations

import multiprocessing
import os
import random
import runpy
import signal
import time
from pathlib import Path

import pytest

from moka_peft.training.checkpoint import MARKER, checkpoints, find_tear

from .test_resume import SCRIPT, results

KILLS = 10
STEPS = 24
SETTINGS = [f"training.steps={STEPS}", "training.save_steps=3", "training.keep_checkpoints=3"]


@pytest.fixture(scope="module")
def processes():
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["moka_peft.training", "transformers.trainer", "sklearn.datasets"])
    return context


@pytest.fixture
def start(processes, write_yaml, tmp_path: Path):
    """start(out) -> a process that trains into tmp_path/out and says in tmp_path/out.step which step it is in."""

    def run(out: str):
        settings = [f"output_dir={tmp_path / out}", "resume=true", *SETTINGS]
        values = {"recipe": str(write_yaml()), "overrides": settings, "log": str(tmp_path / f"{out}.log")}
        values |= {"moment": "watched", "step": str(tmp_path / f"{out}.step")}
        process = processes.Process(target=runpy.run_path, args=(str(SCRIPT), values, "__main__"))
        process.start()
        return process

    return run


def being_written(out: Path, since: float) -> bool:
    """Whether a checkpoint that was written to lately lies there without its marker."""
    open_ones = [folder for folder in checkpoints(out / "checkpoints") if not (folder / MARKER).exists()]
    return any(path.stat().st_mtime > since for folder in open_ones for path in folder.iterdir())


def wait_until(condition, process) -> None:
    while process.is_alive() and not condition():
        time.sleep(0.0005)


def kill_somewhere(process, draw: random.Random, out: Path, step_file: Path, in_checkpoint: bool) -> bool:
    """SIGKILL up to 30 ms after a step began or a checkpoint appeared; False where the run had ended before."""
    if in_checkpoint:
        began = time.time()
        wait_until(lambda: being_written(out, began), process)
    else:
        ahead = draw.randrange(1, 5)
        wait_until(lambda: step_file.exists(), process)
        first = int(step_file.read_text() or 0)
        wait_until(lambda: int(step_file.read_text() or 0) >= first + ahead, process)
    time.sleep(draw.random() * 0.03)
    if process.is_alive():
        os.kill(process.pid, signal.SIGKILL)
    process.join()
    return process.exitcode == -signal.SIGKILL


@pytest.mark.slow
def test_ten_random_kills(start, tmp_path: Path):
    whole = start("whole")
    draw, kills, torn = random.Random(0), 0, 0
    out, step_file = tmp_path / "killed", tmp_path / "killed.step"
    while kills < KILLS:
        step_file.unlink(missing_ok=True)
        assert kill_somewhere(start("killed"), draw, out, step_file, in_checkpoint=kills % 2 == 1)
        kills += 1
        torn += any(not (folder / MARKER).exists() for folder in checkpoints(out / "checkpoints"))
    assert torn >= KILLS // 2 - 1
    last = start("killed")
    last.join()
    whole.join()
    assert (last.exitcode, whole.exitcode) == (0, 0)
    log = (tmp_path / "killed.log").read_text()
    assert log.count("is torn (it was never finished)") >= KILLS // 2 - 1
    assert log.count("going on after step") >= KILLS // 2
    assert not any(find_tear(folder) for folder in checkpoints(out / "checkpoints"))
    assert results(out) == results(tmp_path / "whole")
