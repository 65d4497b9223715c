"""The trained weights of a run, taken from a checkpoint without training on."""

from pathlib import Path
from typing import Any

from transformers import Trainer, TrainerState

from moka_peft.training.best import Stopping, best_step, is_last
from moka_peft.training.checkpoint import find_tear


def restore_last(trainer: Trainer, checkpoint: Path, stopping: Stopping | None) -> bool:
    """Takes the weights and the log of a checkpoint of the last step; False where steps are left.

    The Trainer itself would train one step too many: it looks whether it is done only after a step.
    """
    state = TrainerState.load_from_json(str(checkpoint / "trainer_state.json"))
    if not is_last(state, stopping):
        return False
    _load(trainer, checkpoint)
    trainer.state = state
    return True


def take_best(trainer: Trainer, metric: str | None) -> dict[str, Any] | None:
    """Takes the weights of the step at which a held-out metric was best, and gives that step's entry of the log.

    None without a metric. Raises FileNotFoundError where the step's checkpoint is not whole.
    """
    step = best_step(trainer.state.log_history, metric) if metric else None
    if step is None:
        return None
    checkpoint = Path(str(trainer.args.output_dir)) / f"checkpoint-{step}"
    if step != trainer.state.global_step:
        if problem := find_tear(checkpoint):
            raise FileNotFoundError(
                f"`training.best`: {checkpoint} is not whole ({problem}): expected the best step's weights there. "
                "Put it back, or start the run again."
            )
        _load(trainer, checkpoint)
    entry = next(entry for entry in trainer.state.log_history if "scores" in entry and entry["step"] == step)
    return {"metric": metric, **entry}


def _load(trainer: Trainer, checkpoint: Path) -> None:
    model: Any = trainer.model
    model.load_adapter(str(checkpoint), model.active_adapter, is_trainable=True)
