"""Finished runs of a comparison, made up: their results, and their answers where a test reads them; and a recipe whose
real runs take a second, with comparisons of it."""

import json
import multiprocessing
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import pytest

import moka_peft.analysis.compare.cell as cell_module
from moka_peft.analysis.compare.cells import Grid
from moka_peft.analysis.compare.cost import Cost
from moka_peft.analysis.compare.grid import Wanted, plan_grid
from moka_peft.analysis.compare.results import Result, Row, Table
from moka_peft.training import Recipe, load_recipe
from moka_peft.training.folder import CHECKPOINTS

PLAIN = Result(
    cell="cell",
    variant="lora",
    seed=0,
    settings={},
    metric="exact_match",
    score=0.5,
    groups={},
    questions=4,
    loss=0.7,
    adapter_parameters=34_816,
    trained_parameters=40_000,
    flops_per_token=69_632.0,
    seconds=40.0,
    peak_bytes=30_000_000,
    steps=300,
    machine={"device": "a CPU", "torch": "2.13.0"},
)


RECIPE = """\
model: {name: tiny-avt}
data:
  train: {name: av_digits, split: train, size: 20}
  eval: {name: av_digits, split: test, size: 6}
adapter: {r: 4, lora_alpha: 8}
training: {steps: 3, batch_size: 4, learning_rate: 1e-2, save_steps: 1, num_threads: 1}
evaluation: {batch_size: 6, max_new_tokens: 2}
train_projectors: true
output_dir: out
"""


@pytest.fixture
def make_runs(runs_in, tmp_path):
    return runs_in(tmp_path)


@pytest.fixture(scope="session")
def runs_in():
    """runs_in(folder) -> make(variant, points [S, Q], weights) -> seed -> a run with those answers.

    Without `points`: with `scores`, and no answers.
    """
    return partial(partial, _make)


def _make(folder, variant, points=None, weights=None, scores=(), **changes):
    runs = {}
    for seed, score in enumerate(scores if points is None else points):
        cell = f"{variant}-{len(list(folder.glob('*')))}-{seed}"
        changed = {"score": score} if points is None else {"questions": len(score)}
        if points is not None:
            weight = np.ones(len(score)) if weights is None else np.asarray(weights[seed])
            changed["score"] = float(sum(score) / sum(weight))
            (folder / cell).mkdir()
            rows = [
                {"id": f"q{place}", "points": float(one), "weight": float(weighed)}
                for place, (one, weighed) in enumerate(zip(score, weight, strict=True))
            ]
            (folder / cell / "answers.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
        runs[seed] = replace(PLAIN, cell=cell, variant=variant, seed=seed, folder=folder / cell, **changed | changes)
    return runs


@pytest.fixture
def make_table(make_runs):
    """make({label: scores}) -> a table of those methods against `lora`, without answers."""

    def make(scores, axis=None, value=None, **changes):
        rows = [
            Row(label, label, value, make_runs(label, scores=values, **changes)) for label, values in scores.items()
        ]
        return Table("equal rank", axis, "lora", tuple(rows))

    return make


@pytest.fixture(scope="session")
def recipe_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("compare") / "recipe.yaml"
    path.write_text(RECIPE)
    return path


@pytest.fixture
def made_up_training(monkeypatch):
    """The metrics of a training that takes no time and leaves a checkpoint; what it costs is made up, too."""
    found = {
        "after": {"all": {"accuracy": 0.5, "total": 6}, "Audio": {"accuracy": 0.25, "total": 4}},
        "held_out_loss": {"before": None, "after": 0.7},
        "trained_parameters": 50,
        "seconds": 2.0,
        "peak_bytes": None,
        "steps": 3,
        "num_threads": 7,
    }

    def train(recipe, console):
        (Path(recipe.output_dir) / CHECKPOINTS / "checkpoint-3").mkdir(parents=True)
        return found

    monkeypatch.setattr(cell_module, "train", train)
    monkeypatch.setattr(cell_module, "cost_of", lambda recipe, path: Cost(10, 20.0, 30))
    return found


@pytest.fixture
def recipe(recipe_file: Path) -> Recipe:
    return load_recipe(recipe_file)


@pytest.fixture
def plan(recipe_file: Path) -> Callable[..., Grid]:
    """plan("training.steps=2", methods=("lora",), seeds=2, equal=...) -> the grid of the recipe with that over it."""

    def make(*settings: str, methods: tuple[str, ...] = ("lora", "moka"), seeds: int = 1, **options) -> Grid:
        options.setdefault("equal", ("rank",))
        wanted = Wanted(methods, dict.fromkeys(methods, seeds), **options)
        return plan_grid(load_recipe(recipe_file, settings), wanted)

    return make


@pytest.fixture(scope="session")
def processes():
    """Fresh processes that need not import torch again: they fork from one that has."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["moka_peft.training", "transformers.trainer", "sklearn.datasets"])
    return context
