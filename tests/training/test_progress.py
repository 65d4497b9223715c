import io
from types import SimpleNamespace

import pytest
from rich.console import Console
from transformers import TrainerControl, TrainerState, TrainingArguments

from moka_peft.training.progress import TrainingProgress


def test_counts_what_all_processes_do(tmp_path, monkeypatch):
    """Two processes of batches of 4, accumulated twice: 16 samples a step; 100 tokens here are 200 in all."""
    clock = iter([0.0, 2.0])
    monkeypatch.setattr("moka_peft.training.progress.time.monotonic", lambda: next(clock))
    console = Console(file=io.StringIO(), width=200)
    arguments = SimpleNamespace(train_batch_size=4, gradient_accumulation_steps=2, world_size=2)
    state, control = TrainerState(max_steps=1), TrainerControl()
    progress = TrainingProgress(console)
    progress.trainer = SimpleNamespace(tokens_seen=100)
    progress.on_train_begin(arguments, state, control)
    state.global_step = 1
    progress.on_log(arguments, state, control, logs={"loss": 1.25, "learning_rate": 2e-4})
    assert console.file.getvalue() == "step 1/1, loss 1.250, lr 2.0e-04, 8.0 samples/s, 100 tokens/s, 0 s left\n"


@pytest.mark.parametrize("is_terminal", [False, True])
def test_shows_step_loss_rate_and_time_left(tmp_path, is_terminal: bool):
    console = Console(file=io.StringIO(), force_terminal=is_terminal, width=100)
    arguments = TrainingArguments(output_dir=str(tmp_path), use_cpu=True, per_device_train_batch_size=4)
    state, control = TrainerState(max_steps=2), TrainerControl()
    with TrainingProgress(console) as progress:
        progress.on_train_begin(arguments, state, control)
        for state.global_step in (1, 2):
            progress.on_log(arguments, state, control, logs={"loss": 1.25})
    shown = console.file.getvalue()
    assert "2/2" in shown
    assert "loss 1.250" in shown
    assert "samples/s" in shown
    assert ("s left" in shown) is not is_terminal
