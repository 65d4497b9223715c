"""The curves of a run as pictures: training and held-out loss, the held-out metric, the learning rate."""

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure

from moka_peft.training.metrics import SHARES, value_of

Log = Iterable[Mapping[str, Any]]


def draw_loss(history: Log, path: Path) -> None:
    """Draws the logged losses over the steps; history: the Trainer's log, of all processes of the run."""
    history = list(history)
    steps, losses = _points(history, "loss")
    figure, axes = _axes("training loss")
    axes.plot(steps, losses, color="0.75", linewidth=1, label="step")
    axes.plot(steps, _smoothed(losses), color="tab:blue", label="mean of the last tenth")
    held_out = _points(history, "held_out_loss")
    if held_out[0]:
        axes.plot(*held_out, "o-", color="tab:orange", markersize=3, label="held-out")
    axes.set_ylim(0, None)
    axes.legend(frameon=False)
    figure.savefig(path, dpi=120)


def draw_scores(history: Log, metric: str, path: Path) -> None:
    """Draws the held-out metric over the steps, one line per question group with its interval around `all`."""
    entries = [entry for entry in history if entry.get("scores")]
    figure, axes = _axes(f"held-out {metric}")
    steps = [entry["step"] for entry in entries]
    for group in entries[0]["scores"] if entries else ():
        values = [value_of(entry["scores"][group]) for entry in entries]
        axes.plot(steps, values, "o-", markersize=3, linewidth=2 if group == "all" else 1, label=group)
    if entries:
        low, high = zip(*(entry["scores"]["all"]["interval"] for entry in entries), strict=True)
        axes.fill_between(steps, low, high, alpha=0.15, linewidth=0)
        axes.legend(frameon=False)
    if metric in SHARES:
        axes.set_ylim(0, 1)
    figure.savefig(path, dpi=120)


def draw_learning_rate(history: Log, path: Path) -> None:
    """Draws the adapter's learning rate over the steps."""
    figure, axes = _axes("learning rate")
    axes.plot(*_points(history, "learning_rate"), color="tab:blue")
    figure.savefig(path, dpi=120)


def _axes(label: str) -> tuple[Figure, Any]:
    figure = Figure(figsize=(6, 3.5), layout="constrained")
    axes = figure.subplots()
    axes.set(xlabel="step", ylabel=label)
    return figure, axes


def _points(history: Log, key: str) -> tuple[Sequence[float], Sequence[float]]:
    points = [(entry["step"], entry[key]) for entry in history if entry.get(key) is not None]
    steps, values = zip(*points, strict=True) if points else ((), ())
    return steps, values


def _smoothed(values: Sequence[float]) -> list[float]:
    """Trailing mean over a tenth of all steps."""
    window = max(1, len(values) // 10)
    return [sum(part) / len(part) for part in (values[max(0, i - window) : i] for i in range(1, len(values) + 1))]
