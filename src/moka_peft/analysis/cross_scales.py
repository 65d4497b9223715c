"""Lambda without retraining: what an adapted model can do when media take more or less from the instruction.

MokA, arXiv 2506.05191: u = z + lambda c at media tokens, with c what their cross-attention over the instruction gives.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure
from torch import nn

from moka_peft.analysis.adapted_layers import active_adapter, adapted_layers, describe_adapter
from moka_peft.data import Collator, Sample
from moka_peft.ops.delta import per_modality
from moka_peft.training.answers import generate_answers, sum_losses
from moka_peft.training.metrics import SHARES, score_answers, value_of
from moka_peft.tuner.computation import DeltaOptions

SCALES = (0.0, 0.25, 0.5, 1.0, 1.5, 2.0)


@contextmanager
def cross_scale(model: nn.Module, value: float | Sequence[float]) -> Iterator[None]:
    """Inside, the active adapter's lambda is `value`, one number or one per media modality; the weights stay.

    Raises ValueError where the adapter has no interaction that lambda would scale.
    """
    adapter = active_adapter(model)
    layers = [layer for layer in adapted_layers(model).values() if adapter in getattr(layer, "options", {})]
    before = [layer.options[adapter] for layer in layers]
    _check_interacting(before)
    after = [replace(options, cross_scale=_frozen(value)) for options in before]
    try:
        for layer, options in zip(layers, after, strict=True):
            layer.options[adapter] = options
        yield
    finally:
        for layer, options in zip(layers, before, strict=True):
            layer.options[adapter] = options


def trained_scale(model: nn.Module) -> tuple[float, ...]:
    """The lambda of each media modality that the active adapter has. Raises ValueError as `cross_scale` does."""
    adapter = active_adapter(model)
    options = [getattr(layer, "options", {}).get(adapter) for layer in adapted_layers(model).values()]
    options = [found for found in options if found is not None]
    _check_interacting(options)
    return per_modality(options[0].cross_scale, len(options[0].modalities) - 1)


def _check_interacting(options: Sequence[Any]) -> None:
    def is_alone(o: Any) -> bool:
        return not isinstance(o, DeltaOptions) or o.interaction == "none" or len(o.modalities) < 2

    if not options or any(map(is_alone, options)):
        raise ValueError(
            "`model`: its adapter has no cross-attention, so no lambda scales anything. "
            "Give a MokA adapter whose `interaction` is not 'none'."
        )


def _frozen(value: float | Sequence[float]) -> float | tuple[float, ...]:
    return float(value) if isinstance(value, int | float) else tuple(float(v) for v in value)


def measure_scales(
    model: Any,
    processor: Any,
    samples: Sequence[Sample],
    *,
    scales: Sequence[float | Sequence[float]] = SCALES,
    batch_size: int = 64,
    max_new_tokens: int = 16,
    metric: str = "exact_match",
    collator: Collator | None = None,
) -> dict[str, Any]:
    """Scores the answers and the loss on the right ones at each lambda of `scales`, and at the trained one.

    A row's `agreement` is the share of samples that it answers as the trained lambda does. Gives plain JSON data.
    """
    collator = collator or Collator(processor)
    limits = {"batch_size": batch_size, "max_new_tokens": max_new_tokens}
    trained = trained_scale(model)
    answers: dict[tuple[float, ...], list[str]] = {}
    losses: dict[tuple[float, ...], float] = {}
    for scale in dict.fromkeys([trained, *(per_modality(scale, len(trained)) for scale in scales)]):
        with cross_scale(model, scale):
            answers[scale] = generate_answers(model, processor, collator.collate_prompts, samples, **limits)
            loss, tokens = sum_losses(model, collator, samples, batch_size=batch_size)
        losses[scale] = loss / max(tokens, 1)
    rows = [
        {
            "cross_scale": _short(scale),
            "trained": scale == trained,
            "scores": score_answers(samples, given, metric),
            "loss": losses[scale],
            "agreement": sum(map(str.__eq__, given, answers[trained])) / max(len(samples), 1),
        }
        for scale, given in sorted(answers.items())
    ]
    told = {"analysis": "cross scales", "adapter": describe_adapter(model), "trained": _short(trained)}
    return told | {"samples": len(samples), "metric": metric, **limits, "rows": rows}


def _short(scale: tuple[float, ...]) -> float | list[float]:
    """One number where all modalities have the same."""
    return scale[0] if len(set(scale)) == 1 else list(scale)


def draw_scales(result: dict[str, Any], path: Path) -> None:
    """Draws by lambda, the trained one marked: the metric per question group with the interval around all of them, the
    loss, and the agreement with the trained lambda."""
    rows, metric = result["rows"], result["metric"]
    is_number = all(isinstance(row["cross_scale"], int | float) for row in rows)
    at: list[float] = [row["cross_scale"] if is_number else index for index, row in enumerate(rows)]
    figure = Figure(figsize=(10, 3.3), layout="constrained")
    scores, loss, same = figure.subplots(1, 3)
    _draw_scores(scores, at, rows)
    scores.set(ylabel=metric.replace("_", " "), ylim=(0, 1) if metric in SHARES else None)
    loss.plot(at, [row["loss"] for row in rows], "o-", color="0.3", markersize=3)
    loss.set_ylabel("loss per answer token")
    same.plot(at, [row["agreement"] for row in rows], "o-", color="0.3", markersize=3)
    same.set(ylabel="same answers as trained", ylim=(0, 1.02))
    for axes in (scores, loss, same):
        axes.set_xlabel("lambda")
        axes.set_xticks(at, [_name(row["cross_scale"]) for row in rows], fontsize=8)
        axes.axvline(next(x for x, row in zip(at, rows, strict=True) if row["trained"]), color="0.5", linestyle=":")
    told = f"dotted: trained at {_name(result['trained'])}; {result['samples']} samples"
    figure.suptitle(f"lambda without retraining ({told})", fontsize=10)
    figure.savefig(path, dpi=120)


def _draw_scores(axes: Any, at: Sequence[float], rows: Sequence[dict[str, Any]]) -> None:
    for group in rows[0]["scores"]:
        values = [value_of(row["scores"][group]) for row in rows]
        axes.plot(at, values, "o-", markersize=3, linewidth=2 if group == "all" else 1, label=group)
    low, high = zip(*(row["scores"]["all"]["interval"] for row in rows), strict=True)
    axes.fill_between(at, low, high, alpha=0.15, linewidth=0)
    axes.legend(frameon=False, fontsize=7)


def _name(scale: float | Sequence[float]) -> str:
    return ", ".join(f"{value:g}" for value in ([scale] if isinstance(scale, int | float) else scale))
