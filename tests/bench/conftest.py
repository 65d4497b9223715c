import importlib
import sys
from pathlib import Path

import pytest

BENCH = Path(__file__).parents[2] / "bench"


@pytest.fixture
def load(monkeypatch: pytest.MonkeyPatch):
    """load("shapes") -> a file of bench as a module, importable as when its program is run."""
    monkeypatch.syspath_prepend(str(BENCH))
    yield importlib.import_module
    for path in BENCH.glob("*.py"):
        sys.modules.pop(path.stem, None)
