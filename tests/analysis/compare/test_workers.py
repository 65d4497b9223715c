"""Several processes: the same results, and a dead one costs its own run alone."""

import signal
from dataclasses import replace

import pytest

from moka_peft.analysis.compare.run import CELLS, FAILURES, LOGS
from moka_peft.analysis.compare.workers import Failure, Job, run_in_processes


class Deadly:
    """Kills the process that receives it."""

    def __reduce__(self):
        return eval, ("__import__('os').kill(__import__('os').getpid(), 9)",)


@pytest.mark.slow
def test_two_processes_do_what_one_does_and_survive_the_death_of_one(plan, tmp_path):
    cells = plan(seeds=2).cells
    jobs = [Job(cell, tmp_path / CELLS / cell.name, tmp_path / FAILURES) for cell in cells]
