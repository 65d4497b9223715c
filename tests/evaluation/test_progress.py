import io

import pytest
from rich.console import Console

from moka_peft.evaluation import progress
from moka_peft.evaluation.progress import RecordProgress


@pytest.fixture
def clock(monkeypatch):
    """clock[0] is the time in seconds."""
    now = [100.0]
    monkeypatch.setattr(progress.time, "monotonic", lambda: now[0])
    return now


def test_lines_without_a_terminal_count_all_processes(clock):
    console = Console(file=io.StringIO(), width=200)
    with RecordProgress(console, "pope", total=60, done=20, own=10) as shown:
        for seconds in (5, 15, 16, 31):
            clock[0] = 100 + seconds
            shown.advance(2)
    assert console.file.getvalue().splitlines() == [  # pyright: ignore
        "pope: 36/60 records, 1.1 records/s, 22 s left",
        "pope: 52/60 records, 1.0 records/s, 8 s left",
    ]


def test_a_bar_on_a_terminal(clock):
    console = Console(file=io.StringIO(), width=200, force_terminal=True)
    with RecordProgress(console, "pope", total=30, done=10, own=20) as shown:
        clock[0] = 102
        shown.advance(5)
        [task] = shown.bar.tasks  # pyright: ignore
        assert (task.completed, task.total, task.description) == (15, 30, "2.5 records/s")
    assert not shown.bar.live.is_started  # pyright: ignore
