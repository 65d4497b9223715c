"""Several processes: the same results, a dead one costs its own run alone, and none outlives its parent."""

import json
import multiprocessing
import os
import runpy
import signal
import threading
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

import moka_peft.analysis.compare.workers as workers_module
from moka_peft.analysis.compare.results import RESULT
from moka_peft.analysis.compare.run import CELLS, FAILURES, LOGS
from moka_peft.analysis.compare.workers import Failure, Job, _die_with_parent, in_time, run_in_processes
from moka_peft.training.folder import ANSWERS

SCRIPT = Path(__file__).with_name("killed_grid.py")


class Deadly:
    """Kills the process that receives it."""

    def __reduce__(self):
        return eval, ("__import__('os').kill(__import__('os').getpid(), 9)",)


@pytest.fixture
def quick_start(processes, monkeypatch):
    """Workers that fork from a process which has imported torch, where others import it themselves."""
    monkeypatch.setattr(multiprocessing, "get_context", lambda method: processes)


def test_a_worker_that_dies_costs_its_own_run_alone(quick_start, plan, make_runs, tmp_path):
    """Runs that are finished, so that nothing trains; a fourth one kills its process."""
    cells = plan(seeds=2).cells
    runs = make_runs("lora", scores=[0.25, 0.5, 0.75]).values()
    for run in runs:
        run.folder.mkdir()
        (run.folder / RESULT).write_text(json.dumps(run.as_json()))
    jobs = [Job(cell, run.folder, tmp_path / FAILURES) for cell, run in zip(cells, runs, strict=False)]
    jobs.insert(1, Job(cells[0], Deadly(), tmp_path / FAILURES))  # pyright: ignore
    found = list(run_in_processes(jobs, 2, 1, tmp_path / LOGS))
    [failure] = [one for one in found if isinstance(one, Failure)]
    assert (failure.cell, failure.error) == (cells[0], "its process was killed by SIGKILL")
    assert sorted(one.score for one in found if one != failure) == [0.25, 0.5, 0.75]


def test_a_process_ends_with_its_parent(processes, tmp_path):
    parent = processes.Process(target=be_parent, args=(str(tmp_path / "pid"),))
    parent.start()
    wait_for(lambda: (tmp_path / "pid").exists() and (tmp_path / "pid").read_text())
    pid = (tmp_path / "pid").read_text()
    assert is_alive(pid)
    parent.kill()
    parent.join()
    wait_for(lambda: not is_alive(pid))


def be_parent(path: str) -> None:
    child = multiprocessing.get_context("fork").Process(target=be_child, args=(path,))
    child.start()
    child.join()


def be_child(path: str) -> None:
    threading.Thread(target=_die_with_parent, daemon=True).start()
    Path(path).write_text(str(os.getpid()))
    time.sleep(300)


@pytest.mark.slow
def test_two_processes_give_the_results_of_one_and_one_may_die(plan, tmp_path):
    cells = plan(seeds=2).cells
    jobs = [Job(cell, tmp_path / CELLS / cell.name, tmp_path / FAILURES) for cell in cells]
    jobs.insert(1, Job(cells[0], Deadly(), tmp_path / FAILURES))  # pyright: ignore
    found = list(run_in_processes(jobs, 2, None, tmp_path / LOGS))
    [failure] = [one for one in found if isinstance(one, Failure)]
    assert (failure.cell, failure.error) == (cells[0], "its process was killed by SIGKILL")
    assert sorted(one.cell for one in found if one != failure) == sorted(cell.name for cell in cells)

    alone = [Job(job.cell, tmp_path / "alone" / CELLS / job.cell.name, job.failures) for job in jobs if job != jobs[1]]
    [*single] = run_in_processes(alone, 1, None, tmp_path / LOGS)
    expected = {one.cell: (one.score, one.loss, one.points) for one in single}
    assert {one.cell: (one.score, one.loss, one.points) for one in found if one != failure} == expected


def test_jobs_are_given_out_in_time(monkeypatch):
    clock = iter([1.0, 2.0, 3.0])
    monkeypatch.setattr(workers_module, "time", SimpleNamespace(monotonic=lambda: next(clock)))
    jobs: Any = ["first", "second", "third", "fourth"]
    assert list(in_time(jobs, 3.0)) == ["first", "second"]


@pytest.mark.slow
def test_processes_end_with_their_parent(processes, recipe_file, tmp_path):
    values = {"recipe": str(recipe_file), "out": str(tmp_path), "log": str(tmp_path / "log")}
    values |= {"dies_in": 0, "processes": 2}
    parent = processes.Process(target=runpy.run_path, args=(str(SCRIPT), values, "__main__"))
    parent.start()
    wait_for(lambda: len(list(tmp_path.glob(f"{CELLS}/*/{ANSWERS}"))) >= 1)
    children = Path(f"/proc/{parent.pid}/task/{parent.pid}/children").read_text().split()
    workers = [pid for pid in children if "spawn_main" in Path(f"/proc/{pid}/cmdline").read_text()]
    assert len(workers) == 2
    parent.kill()
    parent.join()
    assert parent.exitcode == -signal.SIGKILL
    wait_for(lambda: not any(is_alive(pid) for pid in workers))


def is_alive(pid: str) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False


def wait_for(is_so) -> None:
    for _ in range(2000):
        if is_so():
            return
        time.sleep(0.05)
    raise TimeoutError
