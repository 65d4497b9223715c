"""The runs of a comparison: methods x seeds, in tables at equal rank, at equal parameters, and along axes."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from moka_peft.analysis.compare.cells import WITHOUT_EFFECT, Cell, Grid, PlannedRow, PlannedTable, identity
from moka_peft.analysis.compare.methods import VARIANTS
from moka_peft.analysis.compare.ranks import adapter_parameters, nearest_rank, with_rank
from moka_peft.training import Recipe, RecipeError
from moka_peft.training.folder import flatten
from moka_peft.training.methods import known_settings
from moka_peft.training.recipe_adapter import Adapter
from moka_peft.training.recipe_file import changed_recipe

FIXED = {
    "seed": "Use `--seeds`.",
    "adapter": "Vary one of its keys.",
    "adapter.method": "Use `--methods`.",
    "evaluation.metric": "Scores of two metrics do not compare. Choose one: `evaluation.metric=...`.",
    **dict.fromkeys(("output_dir", "resume", "overwrite", *sorted(WITHOUT_EFFECT)), "It does not change a result."),
}
"""Keys that are no axis of a comparison, and what to do instead."""


NAME = 40  # letters of a value in a folder's name, which is 255 bytes at most


@dataclass(frozen=True)
class Wanted:
    """What is compared. seeds: how many, per variant. equal: "rank", "parameters". budget_of: the variant and rank
    whose adapter parameters are the budget; no rank: the recipe's. vary: key -> values of an axis."""

    methods: tuple[str, ...]
    seeds: Mapping[str, int]
    equal: tuple[str, ...] = ("rank", "parameters")
    budget_of: tuple[str, int | None] = ("moka", None)
    vary: Mapping[str, Sequence[Any]] = field(default_factory=dict)
    baseline: str = "lora"


def plan_grid(recipe: Recipe, wanted: Wanted) -> Grid:
    """All runs of a comparison. Raises RecipeError with everything that is wrong with any of them."""
    return _Planner(recipe, wanted).plan()


class _Planner:
    """Collects the problems of all rows, so that they are reported together."""

    def __init__(self, recipe: Recipe, wanted: Wanted):
        self.recipe, self.wanted = recipe, wanted
        self.problems = _problems_of(recipe, wanted)
        self.notes: list[str] = []

    def plan(self) -> Grid:
        tables = [self.equal_rank()] if "rank" in self.wanted.equal else []
        tables += [self.axis(key, values) for key, values in self.wanted.vary.items() if key not in FIXED]
        if self.problems:
            raise RecipeError(list(dict.fromkeys(self.problems)))
        if "parameters" in self.wanted.equal:
            tables.append(self.equal_parameters())
        return Grid(tuple(tables), tuple(self.notes))

    def equal_rank(self) -> PlannedTable:
        rows = [self.row(variant) for variant in self.wanted.methods]
        return PlannedTable("equal rank", None, tuple(row for row in rows if row))

    def equal_parameters(self) -> PlannedTable:
        """Each method at the rank that brings it nearest to the budget; one without a rank is left out."""
        variant, rank = self.wanted.budget_of
        budget = adapter_parameters(self.at_rank(variant, rank or self.recipe.adapter.r))
        rows, found = [], []
        for name in self.wanted.methods:
            if "r" not in known_settings(VARIANTS[name].adapter["method"]):
                continue
            count = {r: adapter_parameters(self.at_rank(name, r)) for r in (1, 2)}
            r = nearest_rank(count.__getitem__, budget)
            own = count[1] + (r - 1) * (count[2] - count[1])
            rows.append(self.row(name, rank=r))
            found.append(f"{VARIANTS[name].title} r {r}: {own:,} ({own / budget - 1:+.1%})")
        title = f"{VARIANTS[variant].title} at rank {rank or self.recipe.adapter.r}"
        self.notes.append(f"Equal parameters: those of {title}, {budget:,}. {'; '.join(found)}.")
        self.notes.append("lora_alpha changes with the rank: the scaling is the recipe's at every rank.")
        return PlannedTable("equal parameters", None, tuple(row for row in rows if row))

    def axis(self, key: str, values: Sequence[Any]) -> PlannedTable:
        """A row for each method and value; the baseline has one without a value where the key means nothing to it."""
        rows, without = [], []
        for variant in self.wanted.methods:
            if _knows(variant, key):
                own = [self.axis_row(variant, key, value) for value in values]
                self.refuse_repeated(key, own)
                rows += own
            elif variant == self.wanted.baseline:
                rows.append(self.row(variant))
            else:
                without.append(VARIANTS[variant].title)
        if not any(_knows(variant, key) for variant in self.wanted.methods):
            self.problems.append(f"`--vary {key}`: none of the methods knows it. Add one that does to `--methods`.")
        if without:
            self.notes.append(f"{key} means nothing to {', '.join(without)}: not in its table.")
        return PlannedTable(key, key, tuple(row for row in rows if row))

    def refuse_repeated(self, key: str, rows: Sequence[PlannedRow | None]) -> None:
        """Adds a problem where two values of an axis are the same runs: they would stand for a difference."""
        values: dict[str, Any] = {}
        for row in filter(None, rows):
            if (digits := row.cells[0].identity) in values:
                self.problems.append(
                    f"`--vary {key}`: {values[digits]} and {row.value} are the same run. Expected others."
                )
            values.setdefault(digits, row.value)

    def axis_row(self, variant: str, key: str, value: Any) -> PlannedRow | None:
        if key == "adapter.r" and isinstance(value, int) and value > 0:
            return self.row(variant, value, rank=value)
        return self.row(variant, value, changes={key: value})

    def row(
        self, variant: str, value: Any = None, *, rank: int | None = None, changes: Mapping[str, Any] = {}
    ) -> PlannedRow | None:
        """A method in one setting with its seeds; None where the recipe does not allow it, which `problems` tells."""
        place = "".join(f"`--vary {key}={value}`" for key, value in changes.items()) or f"`{variant}`"
        section = {} if rank is None else with_rank(self.section(variant), rank)
        try:
            recipe = self.changed(variant, place, {**({"adapter": section} if section else {}), **changes})
        except RecipeError as error:
            self.problems += error.problems
            return None
        seeds = range(self.wanted.seeds[variant])
        cells = tuple(self.cell(variant, seed, recipe, changes) for seed in seeds)
        return PlannedRow(VARIANTS[variant].title, variant, value, cells)

    def cell(self, variant: str, seed: int, recipe: Recipe, changes: Mapping[str, Any]) -> Cell:
        recipe = recipe.model_copy(update={"seed": seed})
        settings, reference = flatten(recipe.settings()), flatten(self.plain.settings())
        differing = {key for key in settings | reference if settings.get(key) != reference.get(key)}
        digits = identity(recipe.settings())
        words = [re.sub(r"[^\w.+=-]+", "_", f"{_short(key)}={value}")[:NAME] for key, value in changes.items()]
        rank = [f"r{recipe.adapter.r}"] if "r" in known_settings(recipe.adapter.method) else []
        return Cell(
            name="-".join([variant, *rank, *words, f"seed{seed}", digits]),
            variant=variant,
            seed=seed,
            settings={key: settings.get(key) for key in sorted(differing - WITHOUT_EFFECT - {"seed"})},
            recipe=recipe,
            identity=digits,
            kind=identity(recipe.settings() | {"seed": None}),
        )

    @cached_property
    def plain(self) -> Recipe:
        """The comparison's recipe with numbers written as in its cells' recipes."""
        return changed_recipe(self.recipe, {}, "the recipe")

    def at_rank(self, variant: str, rank: int) -> Recipe:
        return self.changed(variant, f"`{variant}`", {"adapter": with_rank(self.section(variant), rank)})

    def changed(self, variant: str, place: str, changes: Mapping[str, Any]) -> Recipe:
        """The recipe of a row. No scoring before training, and no checkpoints on the way unless the recipe says so."""
        own = {"adapter": self.section(variant), "evaluation.before": False}
        if "save_steps" not in self.recipe.training.model_fields_set:
            own["training.save_steps"] = 10**9
        return changed_recipe(self.recipe, {**own, **changes}, place)

    def section(self, variant: str) -> dict[str, Any]:
        """The section `adapter` of a variant: the recipe's keys that mean something to it, and its own."""
        own = VARIANTS[variant].adapter
        known = known_settings(own["method"])
        written = self.recipe.adapter.model_dump(exclude_none=True)
        return {key: value for key, value in written.items() if key in known} | own


def _problems_of(recipe: Recipe, wanted: Wanted) -> list[str]:
    """What makes a recipe no recipe for a comparison, and an axis none."""
    found = [f"`--vary {key}` is no axis. {FIXED[key]}" for key in wanted.vary if key in FIXED]
    if recipe.data.eval is None:
        found.append("`data.eval` is missing: a comparison scores held-out questions. Add it to the recipe.")
    if recipe.push_to_hub:
        found.append("`push_to_hub` has no meaning in a comparison: its runs would replace each other. Remove it.")
    if recipe.adapter.rank_pattern and "parameters" in wanted.equal:
        found.append("`adapter.rank_pattern` fixes ranks, which equal parameters must change. Use `--equal rank`.")
    if recipe.adapter.rank_pattern and "adapter.r" in wanted.vary:
        found.append("`adapter.rank_pattern` fixes ranks, which `--vary adapter.r` must change. Remove one of them.")
    return found


def _knows(variant: str, key: str) -> bool:
    """Whether a key means something to a variant; one that no adapter has is left to the check of the recipe."""
    section, _, name = key.partition(".")
    own = name.partition(".")[0]
    return (
        section != "adapter"
        or own not in Adapter.model_fields
        or own in known_settings(VARIANTS[variant].adapter["method"])
    )


def _short(key: str) -> str:
    return key.rpartition(".")[2]
