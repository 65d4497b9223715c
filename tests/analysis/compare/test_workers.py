"""Several processes: the same results, a dead one costs its own run alone, and none outlives its parent."""

import runpy
import signal
import time
from pathlib import Path

import pytest

from moka_peft.analysis.compare.run import CELLS, FAILURES, LOGS
from moka_peft.analysis.compare.workers import Failure, Job, run_in_processes
from moka_peft.training.folder import ANSWERS

SCRIPT = Path(__file__).with_name("killed_grid.py")


class Deadly:
    """Kills the process that receives it."""

    def __reduce__(self):
        return eval, ("__import__('os').kill(__import__('os').getpid(), 9)",)


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
