"""Non-text dominance: how much of what an adapter learns comes from text, and how much from other tokens.

IMoD (CVPR 2026) calls so the share of A's elements whose Fisher information from non-text tokens exceeds that from text
tokens, and finds 14.8 % for LoRA and 21.4 % for itself. Its code was not read. Assumed here: the information from some
tokens is the mean, over samples, of the square of that part of the gradient of the sample's answer loss which comes
through those tokens (the empirical Fisher information, diagonal).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from matplotlib.figure import Figure

from moka_peft.analysis.adapted_layers import (
    active_adapter,
    adapted_layers,
    check_unmerged,
    describe_adapter,
    modalities_of,
    routing_of_forwards,
)
from moka_peft.analysis.information import AllSums, kind_of, overall_dominance, overall_shares, shares
from moka_peft.analysis.token_gradients import split_gradients
from moka_peft.data import Collator, Sample
from moka_peft.tuner.channel import RoutingChannel


def measure_dominance(
    model: Any, processor: Any, samples: Sequence[Sample], *, batch_size: int = 8, collator: Collator | None = None
) -> dict[str, Any]:
    """Gradient and Fisher information of every matrix of the adapter by modality, and the dominance of non-text.

    `dominance`: kind of matrix that all modalities share -> share of its elements, in all layers, where non-text tokens
    give more information than text; empty where there is none. `fisher_share`: kind of matrix -> what each modality
    gives of its information in all layers. `tokens`: how many of each modality a sample has on average. `layers`: the
    same per layer and matrix, with the mean norm of a sample's gradient. Gives plain JSON data.
    Raises ValueError where the adapter is merged, or without samples.
    """
    if not samples:
        raise ValueError("`samples`: expected at least one, got none.")
    for name, layer in adapted_layers(model).items():
        check_unmerged(name, layer)
    training = model.training
    model.eval()
    try:
        with routing_of_forwards(model, processor) as channel:
            modalities = modalities_of(channel, active_adapter(model))
            batches = _batches(model, collator or Collator(processor), samples, batch_size)
            found = _sum(model, channel, modalities, batches)
    finally:
        model.train(training)
    layers = found.describe(modalities, len(samples))
    told = {"analysis": "non-text dominance", "adapter": describe_adapter(model), "modalities": list(modalities)}
    told |= {"samples": len(samples), "batch_size": batch_size, "loss": "mean over a sample's answer tokens"}
    told["tokens"] = {m: count / len(samples) for m, count in zip(modalities, found.tokens, strict=True)}
    told |= {"dominance": overall_dominance(layers), "fisher_share": overall_shares(layers)}
    return told | {"layers": layers}


def _batches(model: Any, collate: Collator, samples: Sequence[Sample], size: int) -> Iterator[dict[str, Any]]:
    for start in range(0, len(samples), size):
        batch = collate([samples[i] for i in range(start, min(start + size, len(samples)))])
        yield {name: value.to(model.device) if torch.is_tensor(value) else value for name, value in batch.items()}


def _sum(model: Any, channel: RoutingChannel, modalities: Sequence[str], batches: Iterable[dict[str, Any]]) -> AllSums:
    found = AllSums([0] * len(modalities))
    for batch in batches:
        for sample in split_gradients(model, channel, active_adapter(model), batch, len(modalities)):
            found.add(sample.tokens, sample.layers)
    return found


def draw_dominance(result: dict[str, Any], path: Path) -> None:
    """Draws, for each shared matrix, the shares of the Fisher information by modality as stacked bars and the dominance
    of non-text as a dot: over the depth of the model, and over the projections of a layer. Where modalities share no
    matrix, the shares of all matrices together."""
    matrices = list(result["dominance"]) or [None]
    figure = Figure(figsize=(9, 0.6 + 2.3 * len(matrices)), layout="constrained")
    rows = figure.subplots(len(matrices), 2, sharey=True, squeeze=False)
    for panels, matrix in zip(rows, matrices, strict=True):
        for axes, place in zip(panels, (_depth, _projection), strict=True):
            _draw_bars(axes, _gather(result["layers"], matrix, place), result["modalities"])
            axes.set_xlabel("layer" if place is _depth else "projection")
        panels[0].set_ylabel(f"{matrix or 'all matrices'}\nshare of Fisher information")
    rows[0][1].legend(frameon=False, fontsize=8, loc="upper left", bbox_to_anchor=(1, 1))
    told = ", ".join(f"{matrix} {share:.1%}" for matrix, share in result["dominance"].items())
    figure.suptitle(f"non-text dominance: {told or 'no matrix is shared'} ({result['samples']} samples)", fontsize=10)
    figure.savefig(path, dpi=120)


def _draw_bars(axes: Any, bars: dict[str, dict[str, Any]], modalities: Sequence[str]) -> None:
    below = [0.0] * len(bars)
    for number, modality in enumerate(modalities):
        heights = [shares(bar["fisher"])[modality] for bar in bars.values()]
        axes.bar(list(bars), heights, bottom=below, color=f"C{number}", label=modality)
        below = [low + height for low, height in zip(below, heights, strict=True)]
    dots = {place: bar["dominant"] / bar["shared"] for place, bar in bars.items() if bar["shared"]}
    axes.plot(list(dots), list(dots.values()), "ko", markersize=4, label="elements where\nnon-text dominates")
    axes.set_ylim(0, 1)
    axes.tick_params(axis="x", labelsize=7)


def _gather(layers: Sequence[dict[str, Any]], matrix: str | None, place: Callable[[str], str]) -> dict[str, Any]:
    """Sums over the layers of each place: Fisher information by modality, elements, and those where non-text dominates;
    matrix None: of all matrices."""
    bars: dict[str, Any] = {}
    for layer in layers:
        bar = bars.setdefault(place(layer["layer"]), {"fisher": {}, "dominant": 0, "shared": 0})
        for name, told in layer["matrices"].items():
            if matrix in (None, kind_of(name)):
                for modality, value in told["fisher"].items():
                    bar["fisher"][modality] = bar["fisher"].get(modality, 0.0) + value
                bar["dominant"] += told["non_text_dominant"] if told["shared"] else 0
                bar["shared"] += told["elements"] if told["shared"] else 0
    return bars


def _depth(layer: str) -> str:
    """The number of the decoder's layer in a layer's name, or else the name."""
    return next((part for part in layer.split(".") if part.isdigit()), layer)


def _projection(layer: str) -> str:
    return layer.rsplit(".", 1)[-1].removesuffix("_proj")
