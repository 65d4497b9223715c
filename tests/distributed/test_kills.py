"""One of two processes dies by SIGKILL: what they wrote up to their last complete checkpoint is not lost."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
import transformers
from packaging.version import Version

from moka_peft.training.checkpoint import checkpoints, find_tear, newest_complete, step_of

from .conftest import TRAJECTORY
from .launch import Launch, free_port
from .test_equivalence import HALF, TIGHT

pytestmark = pytest.mark.skipif(
    Version(transformers.__version__) < Version("5.18"),
    reason="transformers 5.17 cannot load the optimizer of one of several processes on a CPU: it asks for `cpu:0`",
)
SAVE_STEPS = 4
RUN = dict(family="llava", save_strategy="steps", save_steps=SAVE_STEPS, **HALF, **TIGHT)
ROOT = Path(__file__).parents[2]


def wait_for(condition, seconds: float = 120):
    """What `condition` gives, once it gives something. Raises TimeoutError."""
    deadline = time.monotonic() + seconds
    while not (value := condition()):
        if time.monotonic() > deadline:
            raise TimeoutError("what the test waits for did not happen")
        time.sleep(0.001)
    return value


def step_and_process(out: Path, rank: int) -> tuple[int, int] | None:
    path = out / f"step-{rank}"
    return tuple(map(int, path.read_text().split())) if path.exists() else None  # pyright: ignore


def kill_at(out: Path, rank: int, step: int) -> None:
    """SIGKILL to a rank while it computes `step`."""
    _, process = wait_for(lambda: (at := step_and_process(out, rank)) and at[0] >= step and at)
    os.kill(process, signal.SIGKILL)


def resumed(processes, out: Path, killed_in: int) -> dict:
    """Both ranks, started again, to the end. Checks that no more than SAVE_STEPS steps were lost."""
    newest, _ = newest_complete(out)
    done = step_of(newest) if newest else 0
    assert killed_in - done <= SAVE_STEPS
    launch = Launch(processes, out.parent, TRAJECTORY, {"out": str(out), "resume": True, **RUN}, 2)
    result = launch.results()[0]
    assert result["resumed"] == (newest and newest.name)
    return result


def assert_same(got: dict, expected: dict) -> None:
    assert got["losses"] == expected["losses"]
    for name, value in expected["weights"].items():
        assert torch.equal(got["weights"][name], value), name


def test_one_of_two_processes_dies(trained, processes, tmp_path):
    expected, step = trained(2, **RUN), random.Random(0).randrange(SAVE_STEPS + 1, 20)
    out = tmp_path / "out"
    launch = Launch(processes, tmp_path, TRAJECTORY, {"out": str(out), "seconds_per_step": 0.03, **RUN}, 2)
    kill_at(out, 1, step)
    assert launch.wait()[1] == -signal.SIGKILL
    assert_same(resumed(processes, out, step), expected)


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(1, 4))
def test_one_dies_again_and_again(trained, processes, tmp_path, seed):
    """Either rank, at three steps, the last of which may fall into a checkpoint."""
    expected, out, draw = trained(2, **RUN), tmp_path / "out", random.Random(seed)
    for step in sorted(draw.sample(range(2, 20), 3)):
        settings = {"out": str(out), "resume": True, "seconds_per_step": 0.03, **RUN}
        launch = Launch(processes, tmp_path, TRAJECTORY, settings, 2)
        kill_at(out, draw.randrange(2), step)
        assert -signal.SIGKILL in launch.wait()
        for rank in range(2):
            (out / f"step-{rank}").unlink()
    assert_same(resumed(processes, out, step), expected)


@pytest.mark.slow
def test_the_last_to_write_dies_before_it_has(trained, processes, tmp_path):
    """The first process is done with its part of the checkpoint and must not call it complete."""
    expected, out = trained(2, **RUN), tmp_path / "out"
    settings = {"out": str(out), "dies_writing": 1, **RUN}
    codes = Launch(processes, tmp_path, TRAJECTORY, settings, 2).wait()
    assert codes[1] == -signal.SIGKILL
    last = checkpoints(out)[-1]
    assert (step_of(last), find_tear(last)) == (2 * SAVE_STEPS, "it was never finished")
    assert (last / "optimizer.pt").exists() and (last / "trainer_state.json").exists()
    got = resumed(processes, out, 2 * SAVE_STEPS)
    assert got["torn"] == [f"{last.name} is torn (it was never finished)"]
    assert_same(got, expected)


@pytest.mark.slow
def test_torchrun_ends_the_other_and_goes_on(trained, tmp_path):
    expected, out = trained(2, **RUN), tmp_path / "out"

    def start(**settings) -> subprocess.Popen:
        run = ["-m", "torch.distributed.run", "--nproc-per-node", "2", "--master-port", str(free_port())]
        call = ["-m", "tests.distributed.trajectory", json.dumps({"out": str(out), **RUN, **settings})]
        path = os.pathsep.join([str(ROOT), str(ROOT / "src")])
        with (tmp_path / "log").open("a") as log:
            return subprocess.Popen(
                [sys.executable, *run, *call],
                env={**os.environ, "PYTHONPATH": path, "OMP_NUM_THREADS": "1"},
                stdout=log,
                stderr=log,
            )

    process = start(seconds_per_step=0.1)
    kill_at(out, 1, 10)
    assert process.wait(60) != 0
    newest, _ = newest_complete(out)
    assert newest == out / "checkpoint-8"
    assert start(resume=True).wait(120) == 0
    state = json.loads((out / "checkpoint-20" / "trainer_state.json").read_text())
    assert [entry["loss"] for entry in state["log_history"] if "loss" in entry] == expected["losses"]
