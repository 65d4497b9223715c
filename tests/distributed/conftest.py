"""Runs of the Trainer in one process or several, each made once and kept for all tests that compare with it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from .launch import Launch, forking

TRAJECTORY = "tests.distributed.trajectory:trajectory"


@pytest.fixture(scope="session")
def processes():
    return forking()


@pytest.fixture(scope="session")
def trained(processes, tmp_path_factory) -> Callable[..., dict[str, Any]]:
    """trained(processes, **settings of `trajectory`) -> losses, norms and weights, and the folder `out`."""
    known: dict[str, dict[str, Any]] = {}

    def run(count: int, timeout_seconds: float = 120, **settings: Any) -> dict[str, Any]:
        key = repr((count, sorted(settings.items())))
        if key not in known:
            folder: Path = tmp_path_factory.mktemp("trained")
            launch = Launch(processes, folder, TRAJECTORY, {"out": str(folder / "out"), **settings}, count)
            ranks = launch.results(timeout_seconds)
            assert all(rank["losses"] == ranks[0]["losses"] for rank in ranks)
            known[key] = {**ranks[0], "out": folder / "out"}
        return known[key]

    return run
