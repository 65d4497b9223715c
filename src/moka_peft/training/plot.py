"""The loss curve of a run as a picture."""

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure


def draw_loss(history: Iterable[Mapping[str, Any]], path: Path) -> None:
    """Draws the logged losses over the steps; history: the Trainer's log, of all processes of the run."""
    points = [(entry["step"], entry["loss"]) for entry in history if "loss" in entry]
    steps, losses = zip(*points, strict=True) if points else ((), ())
    figure = Figure(figsize=(6, 3.5), layout="constrained")
    axes = figure.subplots()
    axes.plot(steps, losses, color="0.75", linewidth=1, label="step")
    axes.plot(steps, _smoothed(losses), color="tab:blue", label="mean of the last tenth")
    axes.set(xlabel="step", ylabel="training loss", ylim=(0, None))
    axes.legend(frameon=False)
    figure.savefig(path, dpi=120)


def _smoothed(values: tuple[float, ...]) -> list[float]:
    """Trailing mean over a tenth of all steps."""
    window = max(1, len(values) // 10)
    return [sum(part) / len(part) for part in (values[max(0, i - window) : i] for i in range(1, len(values) + 1))]
