"""What is around a run's training, which is made up here."""

from pathlib import Path

import pytest

import moka_peft.analysis.compare.cell as cell_module
from moka_peft.analysis.compare.cost import Cost
from moka_peft.analysis.compare.results import RESULT
from moka_peft.training.folder import CHECKPOINTS

FOUND = {
    "after": {"all": {"accuracy": 0.5, "total": 6}, "Audio": {"accuracy": 0.25, "total": 4}},
    "held_out_loss": {"before": None, "after": 0.7},
    "trained_parameters": 50,
    "seconds": 2.0,
    "peak_bytes": None,
    "steps": 3,
    "num_threads": 7,
}


@pytest.fixture
def run(plan, tmp_path, monkeypatch):
    """run() -> the result of a run whose training leaves a checkpoint and FOUND."""

    def train(recipe, console):
        (Path(recipe.output_dir) / CHECKPOINTS / "checkpoint-3").mkdir(parents=True)
        return FOUND

    monkeypatch.setattr(cell_module, "train", train)
    monkeypatch.setattr(cell_module, "cost_of", lambda recipe, path: Cost(10, 20.0, 30))
    return lambda: cell_module.run_cell(plan(methods=("lora",)).cells[0], tmp_path / "cells" / "one")


def test_a_result_is_of_metrics_and_cost(run):
    found = run()
    assert (found.score, found.groups, found.questions, found.loss) == (0.5, {"Audio": 0.25}, 6, 0.7)
    assert (found.adapter_parameters, found.flops_per_token, found.peak_bytes) == (10, 20.0, 30)
    assert (found.seconds, found.steps, found.trained_parameters, found.folder.name) == (2.0, 3, 50, "one")


def test_threads_are_those_that_the_run_began_with(run):
    """A run that goes on in more processes than it began with keeps its own number, as the recipe names none."""
    assert run().machine["threads"] == 7


def test_no_checkpoint_is_left_beside_a_result(run, monkeypatch):
    """Killed just after its result is written, a run is finished, and nobody comes back for the checkpoints."""
    seen = []
    monkeypatch.setattr(
        cell_module, "write_json", lambda path, data: seen.append((path.name, (path.parent / CHECKPOINTS).exists()))
    )
    run()
    assert seen == [(RESULT, False)]
