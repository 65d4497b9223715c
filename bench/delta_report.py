"""What the layer timings show: figures, a table, a plot."""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from recording import table

SEEN = 0.10  # LoRA's adapter takes at least this share of the base: less is too little to compare
Shapes = Sequence[dict[str, Any]]


def pairs(shapes: Shapes, kind: str = "grid") -> list[dict[str, Any]]:
    """Every ratio of shapes whose run counts: MokA over LoRA ("grid"), or the loop over MokA ("loop")."""
    sizes = ("width", "out", "tokens", "batch")
    return [
        {**{name: shape[name] for name in sizes}, **ratio}
        for shape in shapes
        if shape["kind"] == kind and not shape["run"]["void"]
        for ratio in shape["ratios"]
        if ratio["ours"].startswith("per_sample_loop") == (kind == "loop")
    ]


def summary(shapes: Shapes) -> dict[str, Any]:
    """Adapter time where LoRA's is at least a tenth of the base, total time elsewhere, bytes kept, and the loop."""
    found, loops = pairs(shapes), pairs(shapes, "loop")
    seen = [pair for pair in found if pair["their_share_of_base"] >= SEEN]
    other = [pair for pair in found if pair["their_share_of_base"] < SEEN]
    worst = max(seen, key=lambda pair: pair["adapter"], default=None)
    of_loops = [pair["adapter"] for pair in loops if pair["adapter"] is not None]
    return {
        "shapes": len(shapes),
        "void_shapes": sum(bool(shape["run"]["void"]) for shape in shapes),
        "lora_adapter_at_least_a_tenth_of_base": {
            "count": len(seen),
            "adapter_over_lora_median": statistics.median(pair["adapter"] for pair in seen) if seen else None,
            "adapter_over_lora_worst": worst["adapter"] if worst else None,
            "worst_at": place(worst) if worst else None,
        },
        "elsewhere": {
            "count": len(other),
            "total_over_lora_worst": max((pair["total"] for pair in other), default=None),
        },
        "total_over_lora_worst": max((pair["total"] for pair in found), default=None),
        "kept_bytes_over_lora_worst": max((kept_ratio(pair) for pair in found), default=None),
        "loop_over_moka_adapter_least": min(of_loops, default=None),
    }


def kept_ratio(pair: dict[str, Any]) -> float:
    """Bytes that we keep beside x over those that they do; infinite where they keep none and we do."""
    ours, theirs = pair["kept_bytes"], pair["their_kept_bytes"]
    if theirs:
        return round(ours / theirs, 4)
    return float("inf") if ours else 1.0


def place(pair: dict[str, Any]) -> str:
    """Where a ratio was measured, in words."""
    size = f"{pair['tokens']} tokens, {pair['width']} to {pair['out']}"
    return f"{size}, rank {pair['rank']}, dropout {pair['dropout']:g}"


def markdown(shapes: Shapes) -> str:
    """One row per shape: MokA's adapter time over LoRA's at each rank, without and with dropout."""
    found = pairs(shapes)
    columns = sorted({(pair["rank"], pair["dropout"]) for pair in found})
    names = ["tokens", "in", "out", *(f"r {rank}, p {dropout:g}" for rank, dropout in columns)]
    rows = []
    for size in dict.fromkeys((pair["tokens"], pair["width"], pair["out"]) for pair in found):
        own = [pair for pair in found if (pair["tokens"], pair["width"], pair["out"]) == size]
        by_column = {(pair["rank"], pair["dropout"]): pair for pair in own}
        rows.append([*size, *(_cell(by_column.get(column)) for column in columns)])
    return table(names, rows)


def _cell(pair: dict[str, Any] | None) -> str:
    """The adapter's ratio; in brackets the total's where LoRA's adapter is too small a share of the base to compare."""
    if pair is None:
        return ""
    if pair["their_share_of_base"] >= SEEN:
        return f"{pair['adapter']:.2f}"
    return f"({pair['total']:.2f})"


def plot(shapes: Shapes, path: Path) -> None:
    """Adapter time of LoRA and MokA as a share of the frozen base's, over the width; one panel per rank."""
    from matplotlib.figure import Figure

    found = [pair for pair in pairs(shapes) if pair["adapter"] is not None]
    if not found:
        return
    ranks, most = sorted({pair["rank"] for pair in found}), max(pair["tokens"] for pair in found)
    figure = Figure(figsize=(3.2 * len(ranks), 3.2), layout="constrained")
    for axes, rank in zip(figure.subplots(1, len(ranks), sharey=True, squeeze=False)[0], ranks, strict=True):
        own = [pair for pair in found if pair["rank"] == rank and pair["tokens"] == most]
        for dropout, style in zip(sorted({pair["dropout"] for pair in own}), ("-", "--", ":"), strict=False):
            line = [pair for pair in own if pair["dropout"] == dropout and pair["out"] == pair["width"]]
            _draw(axes, line, style, dropout)
        axes.set(title=f"rank {rank}", xlabel="width", xscale="log")
        widths = sorted({pair["width"] for pair in own})
        axes.set_xticks(widths, [str(width) for width in widths])
        axes.minorticks_off()
    figure.axes[0].set_ylabel(f"adapter time / frozen base, {most} tokens")
    figure.axes[0].set_ylim(0, None)
    figure.axes[-1].legend(frameon=False, fontsize="small")
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=120)


def _draw(axes: Any, line: Iterable[dict[str, Any]], style: str, dropout: float) -> None:
    points = sorted(line, key=lambda pair: pair["width"])
    widths = [pair["width"] for pair in points]
    lora = [pair["their_share_of_base"] for pair in points]
    moka = [pair["their_share_of_base"] * pair["adapter"] for pair in points]
    label = f", dropout {dropout:g}" if dropout else ""
    axes.plot(widths, lora, style, marker="o", markersize=3, color="0.55", label=f"LoRA{label}")
    axes.plot(widths, moka, style, marker="o", markersize=3, color="tab:blue", label=f"MokA{label}")
