import io

import pytest
from rich.console import Console
from transformers import TrainerControl, TrainerState, TrainingArguments

from moka_peft.training.progress import TrainingProgress


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
