"""What the runs of a comparison came to, read from their folders."""

import json
from collections import Counter
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from moka_peft.training.folder import ANSWERS

RESULT = "result.json"


@dataclass(frozen=True)
class Result:
    """One finished run.

    `settings`: recipe keys that differ from the comparison's recipe. `score` and `groups`: shares of right answers, or
    the metric's value. `peak_bytes`: on a GPU the most that was allocated, on a CPU what one training step keeps for
    its backward pass. `flops_per_token`: what the adapter adds to a forward, per token.
    """

    cell: str
    variant: str
    seed: int
    settings: dict[str, Any]
    metric: str
    score: float
    groups: dict[str, float]
    questions: int
    loss: float | None
    adapter_parameters: int
    trained_parameters: int
    flops_per_token: float | None
    seconds: float
    peak_bytes: int | None
    steps: int
    machine: dict[str, Any] = field(default_factory=dict)
    folder: Path = Path()

    @cached_property
    def points(self) -> dict[tuple[str, int], tuple[float, float]]:
        """Question -> what its answer scored, and what it weighs; a question is its id and how many of that id came
        before it: ids of data may repeat."""
        found, seen = {}, Counter()
        with (self.folder / ANSWERS).open(encoding="utf-8") as lines:
            for row in map(json.loads, lines):
                found[row["id"], seen[row["id"]]] = (row["points"], row["weight"])
                seen[row["id"]] += 1
        return found

    def as_json(self) -> dict[str, Any]:
        return {key: value for key, value in asdict(self).items() if key != "folder"}


@dataclass(frozen=True)
class Row:
    """One line of a table: a method in one setting, with a finished run per seed. `value`: where the axis has one."""

    label: str
    variant: str
    value: Any
    results: Mapping[int, Result]


@dataclass(frozen=True)
class Table:
    """Rows that are compared with each other. `axis`: the recipe key that varies, None for a table of methods."""

    name: str
    axis: str | None
    baseline: str
    rows: tuple[Row, ...]


def read_result(folder: Path) -> Result | None:
    """The result of the run in `folder`; None where it is not finished."""
    path = folder / RESULT
    if not path.is_file():
        return None
    return Result(**json.loads(path.read_text(encoding="utf-8")), folder=folder)
