"""How long a run trains, over all interruptions: the time goes into each checkpoint with the Trainer's state."""

import time
from pathlib import Path
from typing import Any

from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments
from transformers.trainer_callback import ExportableState


class Stopwatch(TrainerCallback, ExportableState):
    """Seconds of training up to now, those before `checkpoint`, which the run goes on from, included."""

    def __init__(self, checkpoint: Path | None = None):
        self.earlier = _seconds_at(checkpoint) if checkpoint else 0.0
        self.started = time.monotonic()

    @property
    def seconds(self) -> float:
        return self.earlier + time.monotonic() - self.started

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Makes its place in the state of a checkpoint that was written without it: the Trainer looks there."""
        callbacks: Any = state.stateful_callbacks
        callbacks.setdefault(type(self).__name__, self.state())

    def state(self) -> dict[str, Any]:
        """What the Trainer writes into a checkpoint."""
        return {"args": {}, "attributes": {"seconds": self.seconds}}


def _seconds_at(checkpoint: Path) -> float:
    """The seconds that a checkpoint took; 0 where it does not tell."""
    state = TrainerState.load_from_json(str(checkpoint / "trainer_state.json"))
    callbacks: Any = state.stateful_callbacks or {}
    kept = callbacks.get(Stopwatch.__name__) or {}
    return float(kept.get("attributes", {}).get("seconds", 0.0))
