from pathlib import Path

import pytest
from transformers import TrainerControl, TrainerState, TrainingArguments

from moka_peft.training.checkpoint import MARKER, CheckpointMarking, checkpoints, mark_complete, newest_complete


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Complete checkpoints of steps 2, 4 and 10."""
    for step in (2, 4, 10):
        (tmp_path / f"checkpoint-{step}").mkdir()
        (tmp_path / f"checkpoint-{step}" / "weights").write_bytes(bytes(100))
        mark_complete(tmp_path / f"checkpoint-{step}")
    return tmp_path


def test_the_newest_is_taken_by_number(folder: Path):
    assert newest_complete(folder) == (folder / "checkpoint-10", [])


def test_no_folder_has_no_checkpoint(tmp_path: Path):
    assert newest_complete(tmp_path / "none") == (None, [])


@pytest.mark.parametrize(
    ("tear", "problem"),
    [
        (lambda last: (last / MARKER).unlink(), "it was never finished"),
        (lambda last: (last / MARKER).write_text("{"), "complete.json is damaged"),
        (lambda last: (last / "weights").write_bytes(bytes(99)), "weights is damaged"),
        (lambda last: (last / "weights").write_bytes(bytes(99) + b"x"), "weights is damaged"),
        (lambda last: (last / "weights").unlink(), "weights is missing"),
    ],
)
def test_a_torn_checkpoint_is_named_and_passed_over(folder: Path, tear, problem: str):
    tear(folder / "checkpoint-10")
    assert newest_complete(folder) == (folder / "checkpoint-4", [f"checkpoint-10 is torn ({problem})"])


def test_only_torn_checkpoints_are_none(folder: Path):
    for checkpoint in checkpoints(folder):
        (checkpoint / MARKER).unlink()
    newest, torn = newest_complete(folder)
    assert newest is None
    assert len(torn) == 3


def test_a_checkpoint_without_every_process_is_never_marked(folder: Path):
    (folder / "checkpoint-10" / MARKER).unlink()
    (folder / "checkpoint-10" / "rng_state_0.pth").write_bytes(b"state")
    with pytest.raises(OSError, match=r"`output_dir` is not shared: checkpoint-10 lacks rng_state_1.pth"):
        mark_complete(folder / "checkpoint-10", processes=2)
    assert newest_complete(folder)[0] == folder / "checkpoint-4"


def test_old_checkpoints_go_once_the_new_one_is_marked(folder: Path):
    (folder / "checkpoint-12").mkdir()
    arguments = TrainingArguments(output_dir=str(folder), use_cpu=True)
    CheckpointMarking(keep=2).on_save(arguments, TrainerState(global_step=12), TrainerControl())
    assert [path.name for path in checkpoints(folder)] == ["checkpoint-10", "checkpoint-12"]
    assert newest_complete(folder) == (folder / "checkpoint-12", [])
