"""A made-up benchmark, and an undisturbed run of it, made once."""

from pathlib import Path

import pytest

from ..distributed.launch import forking
from .asking import pope_task, run, write_pope


@pytest.fixture(scope="session")
def processes():
    return forking()


@pytest.fixture(scope="session")
def pope(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_pope(tmp_path_factory.mktemp("benchmarks") / "pope")


@pytest.fixture(scope="session")
def whole(pope: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a run that nothing disturbed."""
    out = tmp_path_factory.mktemp("whole") / "pope"
    run(pope_task(pope), out)
    return out
