"""Every family does what every other does: one test per cell, and the table of them in docs/models.md."""

from itertools import cycle
from pathlib import Path

import pytest

from .behaviours import BEHAVIOURS
from .case import Case
from .paths import COMPILED, PATHS, take
from .quantizers import KINDS
from .table import END, START
from .zoo import FAMILIES

SLOW = {name for name, path in PATHS.items() if path in COMPILED}  # seconds each
SAMPLED = ("qwen2_5_vl", "llava", "qwen2_audio")
"""Families that stand for all: with images and videos, with images, and with audio."""


@pytest.fixture(scope="module")
def cases():
    return {name: Case(family) for name, family in FAMILIES.items()}


def behaviour_cells():
    """Each family on one kind of quantized base, those that stand for all on every kind."""
    for family, kind in zip(FAMILIES, cycle(KINDS)):
        others = set() if family in SAMPLED else {f"{other} base" for other in KINDS if other != kind}
        for behaviour in BEHAVIOURS:
            marks = [pytest.mark.slow] if behaviour in others else []
            yield pytest.param(family, behaviour, marks=marks, id=f"{family}-{behaviour}")


@pytest.mark.parametrize(("family", "behaviour"), list(behaviour_cells()))
def test_behaviour(cases, family, behaviour, record_property):
    note = BEHAVIOURS[behaviour](cases[family])
    record_property("cell", [family, behaviour, note or ""])


def path_cells():
    for family in FAMILIES:
        for path in PATHS:
            sampled = path == "compiled decoder" and family in SAMPLED
            marks = [pytest.mark.slow] if path in SLOW and not sampled else []
            yield pytest.param(family, path, marks=marks, id=f"{family}-{path}")


@pytest.mark.parametrize(("family", "path"), list(path_cells()))
def test_path(cases, family, path, record_property):
    note = take(PATHS[path], cases[family])
    record_property("cell", [family, path, note or ""])


def text_query_cells():
    for family in FAMILIES:
        marks = [] if family in SAMPLED else [pytest.mark.slow]
        yield from (
            pytest.param(family, path, marks=marks, id=f"{family}-{path}") for path in PATHS if path not in SLOW
        )


@pytest.mark.parametrize(("family", "path"), list(text_query_cells()))
def test_path_where_text_asks(cases, family, path):
    """What decoding keeps of a prompt is another thing there; it does not depend on the family."""
    take(PATHS[path], cases[family], interaction="text_query")


def test_the_documented_table_has_every_cell():
    text = (Path(__file__).parents[2] / "docs" / "models.md").read_text(encoding="utf-8")
    tables = text.split(START)[1].split(END)[0].strip().split("\n\n")
    for table, columns in zip(tables, (BEHAVIOURS, PATHS), strict=True):
        head, _, *rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in table.splitlines()]
        assert head == ["family", *columns]
        assert [row[0] for row in rows] == list(FAMILIES)
        assert all(cell for row in rows for cell in row)
