import json

from transformers import TrainerControl, TrainerState, TrainingArguments

import moka_peft.training.stopwatch as module
from moka_peft.training import load_recipe, train
from moka_peft.training.checkpoint import newest_complete
from moka_peft.training.stopwatch import Stopwatch


def test_a_resumed_run_counts_the_seconds_before_it(write_yaml, tmp_path, monkeypatch):
    train(load_recipe(write_yaml("evaluation: {", "evaluation: {before: false, ")))
    metrics = json.loads((tmp_path / "out" / "metrics.json").read_text())
    checkpoint, _ = newest_complete(tmp_path / "out" / "checkpoints")
    assert checkpoint.name == "checkpoint-6"
    earlier = Stopwatch(checkpoint).earlier
    assert 0 < earlier <= metrics["seconds"]
    monkeypatch.setattr(module.time, "monotonic", iter([10.0, 13.0]).__next__)
    assert Stopwatch(checkpoint).seconds == earlier + 3.0
    notes = json.loads((tmp_path / "out" / "run.json").read_text())
    assert notes == {"num_threads": 1, "processes": 1, "samples": 20}


def test_a_checkpoint_written_without_it_is_gone_on_from(tmp_path):
    """The Trainer looks a callback up in the state that it loaded when it saves the next one."""
    TrainerState(global_step=3).save_to_json(str(tmp_path / "trainer_state.json"))
    state, watch = TrainerState.load_from_json(str(tmp_path / "trainer_state.json")), Stopwatch(tmp_path)
    watch.on_train_begin(TrainingArguments(str(tmp_path), use_cpu=True), state, TrainerControl())
    assert watch.earlier == 0 and state.stateful_callbacks["Stopwatch"]["attributes"]["seconds"] >= 0
