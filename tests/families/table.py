"""The result of the matrix as the tables of docs/models.md."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path

from .behaviours import BEHAVIOURS
from .paths import PATHS
from .zoo import FAMILIES

START, END = "<!-- made by the tests: make models-table -->\n", "<!-- end of what the tests made -->\n"
SIGNS = {"": "✓"}

Cells = dict[tuple[str, str], str]  # family and behaviour or path -> remark, empty where all was asserted


def write_tables(path: Path, found: Iterable[Sequence[str]]) -> str:
    """Puts the tables between the marks in `path`; does nothing where a cell is missing. Returns what it did."""
    cells = {(family, column): note for family, column, note in found}
    missing = [(f, c) for f in FAMILIES for c in (*BEHAVIOURS, *PATHS) if (f, c) not in cells]
    if missing:
        return f"{path} is as it was: {len(missing)} cells are missing, first {missing[0]}"
    text = path.read_text(encoding="utf-8")
    before, rest = text.split(START)
    tables = "\n".join([_table(tuple(BEHAVIOURS), cells), _table(tuple(PATHS), cells)])
    path.write_text(f"{before}{START}{tables}{END}{rest.split(END)[1]}", encoding="utf-8")
    return f"{path} written: {len(cells)} cells"


def _table(columns: Sequence[str], cells: Cells) -> str:
    lines = [["family", *columns], ["---"] * (len(columns) + 1)]
    lines += [[family, *(_sign(cells[family, column]) for column in columns)] for family in FAMILIES]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


def _sign(note: str) -> str:
    return SIGNS.get(note, note)
