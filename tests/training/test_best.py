"""The best step and early stopping: decided from the log, kept on disk, used at the end, the same when resumed."""

import io
import json
from pathlib import Path

import pytest
import torch
from rich.console import Console
from safetensors.torch import load_file
from transformers import TrainerState

from moka_peft.training import load_recipe, train
from moka_peft.training.best import Stopping, best_step, is_last, is_over
from moka_peft.training.checkpoint import CheckpointMarking, checkpoints
from moka_peft.training.weights import take_best

pytestmark = pytest.mark.usefixtures("without_plots")


def log(*losses: float) -> list[dict]:
    entries = [
        {"step": 10 * i, "scores": {"all": {"value": loss}}, "held_out_loss": loss} for i, loss in enumerate(losses, 1)
    ]
    return [{"step": 1, "loss": 0.1}, *entries]


@pytest.mark.parametrize(
    ("metric", "step"), [("loss", 20), ("wer", 20), ("token_f1", 10)], ids=["loss", "lower", "higher"]
)
def test_the_first_of_equal_steps_is_the_best(metric: str, step: int):
    assert best_step(log(3.0, 1.0, 1.0, 2.0), metric) == step
    assert best_step(log(), metric) is None


@pytest.mark.parametrize(
    ("losses", "min_delta", "over"),
    [
        ((3, 2, 1), 0.0, False),
        ((3, 2, 2), 0.0, False),
        ((3, 2, 2, 2), 0.0, True),
        ((3, 2.9, 2.8), 0.5, True),
        ((3, 2.9, 2.4, 2.3), 0.5, False),
        ((1, 2, 0.5, 3), 0.0, False),
    ],
)
def test_patience_runs_out(losses, min_delta: float, over: bool):
    stopping = Stopping("loss", patience=2, min_delta=min_delta)
    assert is_over(log(*losses), stopping) is over
    state = TrainerState(log_history=log(*losses), global_step=40, max_steps=100)
    assert is_last(state, stopping) is over
    assert not is_last(state, None)


def test_the_best_checkpoint_is_not_rotated_away(tmp_path: Path):
    arguments = type("Arguments", (), {"output_dir": str(tmp_path), "world_size": 1})
    for step in (10, 20, 30, 40):
        (tmp_path / f"checkpoint-{step}").mkdir()
        losses = [2.0, 1.0, 3.0, 4.0][: step // 10]
        state = TrainerState(log_history=log(*losses), global_step=step)
        CheckpointMarking(keep=1, best="loss").on_save(arguments, state, None)
    assert [path.name for path in checkpoints(tmp_path)] == ["checkpoint-20", "checkpoint-40"]


def test_torn_checkpoints_of_later_steps_push_out_none(tmp_path: Path):
    """After `--resume` from further back; the new one would go as the oldest."""
    arguments = type("Arguments", (), {"output_dir": str(tmp_path), "world_size": 1})
    for step in (10, 20, 30):
        (tmp_path / f"checkpoint-{step}").mkdir()
    CheckpointMarking(keep=2).on_save(arguments, TrainerState(global_step=10), None)
    assert [path.name for path in checkpoints(tmp_path)] == ["checkpoint-10", "checkpoint-20", "checkpoint-30"]


BEST = [
    "evaluation.steps=1", "training.best=loss", "training.keep_checkpoints=1", "training.save_steps=3",
    "training.learning_rate=0.3", "training.early_stopping={metric: loss, patience: 1}", "training.scheduler=constant",
]  # fmt: skip  # learns so fast that the loss soon rises


@pytest.fixture(scope="module")
def runs(tiny_folder, recipe_text, tmp_path_factory):
    """The folders of one uninterrupted run, and of one that ended at its best step and was resumed."""
    root = tmp_path_factory.mktemp("best")
    (root / "recipe.yaml").write_text(recipe_text.format(model=tiny_folder, out=root / "out"))

    def start(name: str, *settings: str) -> dict:
        recipe = load_recipe(root / "recipe.yaml", [*BEST, f"output_dir={root / name}", *settings])
        return train(recipe, Console(file=io.StringIO()))

    metrics = start("whole")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("moka_peft.training.run.take_best", lambda *_: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            start("resumed")
    start("resumed", "resume=true")
    return root, metrics


def test_a_run_stops_early_and_keeps_its_best_step(runs):
    root, metrics = runs
    losses = {entry["step"]: entry["held_out_loss"] for entry in metrics["during"]}
    best = metrics["best"]["step"]
    assert best == min(losses, key=losses.get) and metrics["steps"] == best + 1 < 6
    assert metrics["held_out_loss"]["after"] == losses[best]
    last = json.loads((root / f"whole/checkpoints/checkpoint-{best + 1}/trainer_state.json").read_text())
    assert [entry["step"] for entry in last["log_history"] if "loss" in entry] == list(range(1, best + 2))
    kept = load_file(root / "whole/checkpoints" / f"checkpoint-{best}" / "adapter_model.safetensors")
    left = load_file(root / "whole/adapter_model.safetensors")
    assert kept.keys() == left.keys() and all(torch.equal(kept[name], left[name]) for name in kept)
    assert f"The step with the best loss is kept: {best}." in (root / "whole/README.md").read_text()


def test_a_stopped_run_does_not_go_on_when_resumed(runs):
    root, metrics = runs
    again = json.loads((root / "resumed/metrics.json").read_text())
    assert again["steps"] == metrics["steps"] and again["during"] == json.loads(json.dumps(metrics["during"]))
    first, second = ((root / name / "adapter_model.safetensors").read_bytes() for name in ("whole", "resumed"))
    assert first == second


def test_a_best_checkpoint_that_is_gone_is_named(tmp_path: Path):
    trainer = type("Trainer", (), {})()
    trainer.state = TrainerState(log_history=log(1.0, 2.0), global_step=20)
    trainer.args = type("Arguments", (), {"output_dir": str(tmp_path), "world_size": 1})
    with pytest.raises(FileNotFoundError, match=r"checkpoint-10 is not whole \(it was never finished\)"):
        take_best(trainer, "loss")
