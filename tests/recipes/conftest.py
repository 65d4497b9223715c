"""The recipes that ship with the project, and what runs one of them tiny."""

from collections.abc import Callable
from pathlib import Path

import pytest

from moka_peft.cli import call

ROOT = Path(__file__).parents[2]
PAPER = sorted((ROOT / "recipes" / "paper").glob("*/*.yaml"))
ALIGNED = sorted((ROOT / "recipes" / "aligned").glob("*.yaml"))


@pytest.fixture(autouse=True)
def _at_the_root(monkeypatch):
    """Relative paths in recipes start where the project lies."""
    monkeypatch.chdir(ROOT)


@pytest.fixture(scope="session")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder whose tiny runs share their models and data."""
    return tmp_path_factory.mktemp("tiny")


@pytest.fixture
def run_tiny(place: Path) -> Callable[..., Path]:
    """run_tiny("paper/avt/stage1_qwen2", *words) -> the folder of its run, called `out` or after the recipe."""

    def run(name: str, *words: str, out: str = "", code: int = 0) -> Path:
        title = out or name.replace("/", "_")
        words = (str(ROOT / "recipes" / f"{name}.yaml"), "--tiny", f"output_dir={place / title}", *words)
        assert call(["train", *words]) == code
        return place / "tiny" / title

    return run
