"""Where a run's numbers go: TensorBoard's events are read back, the others are checked to be asked for."""

import io
from pathlib import Path

import pytest
from rich.console import Console
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from moka_peft.training import load_recipe, train
from moka_peft.training import run as training_run


def test_tensorboard_gets_every_step_and_the_held_out_scores(write_yaml, tmp_path: Path):
    settings = [
        "training.steps=3",
        "evaluation.steps=2",
        "evaluation.metric=token_f1",
        "training.report_to=[tensorboard]",
    ]
    metrics = train(load_recipe(write_yaml(), settings), Console(file=io.StringIO()))
    events = EventAccumulator(str(tmp_path / "out/tensorboard")).Reload()
    steps = {tag: [event.step for event in events.Scalars(tag)] for tag in events.Tags()["scalars"]}
    assert steps["train/loss"] == steps["train/learning_rate"] == [1, 2, 3]
    assert steps["eval/token_f1"] == steps["eval/loss"] == [2]
    [entry] = metrics["during"]
    assert events.Scalars("eval/loss")[0].value == pytest.approx(entry["held_out_loss"])
    assert not (tmp_path / "out/checkpoints/runs").exists()


def test_wandb_and_trackio_are_passed_on(write_yaml, monkeypatch):
    class Asked(Exception):
        pass

    def ask(model, collator, samples, arguments, *_):
        raise Asked(arguments)

    monkeypatch.setattr(training_run, "build_trainer", ask)
    monkeypatch.setattr(training_run, "check_machine", lambda recipe: None)
    recipe = load_recipe(write_yaml(), ["data.eval=null", "training.report_to=[wandb, trackio, tensorboard]"])
    with pytest.raises(Asked) as asked:
        train(recipe, Console(file=io.StringIO()))
    arguments = asked.value.args[0]
    assert (arguments.report_to, arguments.run_name) == (["wandb", "trackio"], "out")
