"""What is around a run's training, which is made up here."""

import pytest

import moka_peft.analysis.compare.cell as cell_module
from moka_peft.analysis.compare.results import RESULT
from moka_peft.training.folder import CHECKPOINTS


@pytest.fixture
def run(plan, tmp_path, made_up_training):
    """run() -> the result of a run, of metrics and a cost that are made up."""
    return lambda: cell_module.run_cell(plan(methods=("lora",)).cells[0], tmp_path / "cells" / "one")


def test_a_run_that_ended_before_it_said_which_it_is_begins_anew(run, tmp_path):
    torn = tmp_path / "cells" / "one"
    torn.mkdir(parents=True)
    (torn / "recipe.yaml.partial").write_text("mod")
    run()
    assert not (torn / "recipe.yaml.partial").exists()


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
