"""Where a run's numbers go while it trains: TensorBoard, wandb, trackio."""

from collections.abc import Sequence
from pathlib import Path

from transformers import TrainerCallback
from transformers.integrations.integration_utils import TensorBoardCallback

from moka_peft.training.processes import rank

FOLDER = "tensorboard"


def tensorboard_callbacks(report_to: Sequence[str], out: Path) -> list[TrainerCallback]:
    """What writes TensorBoard's events into the run's folder; the Trainer would put them beside the checkpoints."""
    if "tensorboard" not in report_to or rank() != 0:
        return []
    from torch.utils.tensorboard import SummaryWriter

    return [TensorBoardCallback(SummaryWriter(log_dir=str(out / FOLDER)))]
