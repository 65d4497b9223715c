"""What a comparison consists of before it has run: its runs, and the tables that they stand in."""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from moka_peft.training import Recipe
from moka_peft.training.folder import flatten

WITHOUT_EFFECT = {
    "push_to_hub", "evaluation.before", "training.report_to", "training.save_steps", "training.keep_checkpoints",
    "training.num_workers", "data.cache",
}  # fmt: skip
"""Keys that leave a run's result as it is: runs that differ in them are the same."""


def identity(settings: Mapping[str, Any]) -> str:
    """8 hex digits of what decides a run's result; settings: those of `Recipe.settings()`."""
    flat = {key: value for key, value in flatten(settings).items() if key not in WITHOUT_EFFECT}
    return hashlib.sha256(json.dumps(flat, sort_keys=True).encode()).hexdigest()[:8]


@dataclass(frozen=True)
class Cell:
    """One run. recipe: checked, but without the folder it goes to; settings: keys that differ from the comparison's
    recipe; identity: digits that are the same for runs with the same result; kind: the same, whatever the seed."""

    name: str
    variant: str
    seed: int
    settings: dict[str, Any]
    recipe: Recipe
    identity: str
    kind: str


@dataclass(frozen=True)
class PlannedRow:
    label: str
    variant: str
    value: Any
    cells: tuple[Cell, ...]


@dataclass(frozen=True)
class PlannedTable:
    name: str
    axis: str | None
    rows: tuple[PlannedRow, ...]


@dataclass(frozen=True)
class Grid:
    """notes: what a reader of the tables must know."""

    tables: tuple[PlannedTable, ...]
    notes: tuple[str, ...]

    @property
    def cells(self) -> list[Cell]:
        """Each run once, all of one seed before those of the next: what is there early can be compared."""
        every = {cell.identity: cell for table in self.tables for row in table.rows for cell in row.cells}
        return sorted(every.values(), key=lambda cell: cell.seed)
