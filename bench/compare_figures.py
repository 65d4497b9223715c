"""Draws the figures of docs/comparison.md from a recorded comparison, and prints its tables.

    python bench/compare_figures.py                            # bench/results/compare_cpu.json

Differences are paired by seed, with the 95 % interval of a paired t test; curves show the mean over seeds and its 95 %
interval. Figures of parts that were not run are left as they are.
"""

import argparse
import json
from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from recording import IMAGES, RESULTS
from scipy.special import stdtrit

COLOURS = {"lora": "tab:orange", "moka": "tab:blue"}
MODALITIES = {"visual": "image + text", "audio": "sound + text", "equal_rank": "image + sound\n+ text"}
HARDER = {
    "reference": "cross-modal\nreference", "shift_images": "other images", "shift_sounds": "other sounds",
    "shortcut": "shortcuts\nin the text",
}  # fmt: skip

Row = Mapping[str, Any]


def rows_of(parts: Mapping[str, Any], part: str) -> list[Row]:
    """The rows of a part's table; none where it was not run."""
    return parts[part]["tables"][0]["rows"] if part in parts and parts[part]["tables"] else []


def half_width(score: Mapping[str, Any]) -> float:
    """Half of the 95 % interval of a mean over seeds, in points."""
    if score["count"] < 2:
        return 0.0
    return 100 * float(stdtrit(score["count"] - 1, 0.975)) * score["sd"] / score["count"] ** 0.5


def draw_differences(axes: Axes, rows: Sequence[Row], title: str) -> None:
    """A point and an interval for each method: its mean score less LoRA's."""
    shown = sorted((row for row in rows if row["difference"]), key=lambda row: row["difference"]["mean"])
    for place, row in enumerate(shown):
        difference = row["difference"]
        low, high = (100 * end for end in difference["interval"] or [difference["mean"]] * 2)
        is_moka = row["variant"].startswith("moka")
        axes.plot([low, high], [place, place], color="tab:blue" if is_moka else "0.45", linewidth=2)
        axes.plot(100 * difference["mean"], place, "o", color="tab:blue" if is_moka else "0.25")
    axes.axvline(0, color="tab:orange", linewidth=1.5)
    axes.set_yticks(range(len(shown)), [f"{row['label']} ({row['parameters'] / 1000:.0f} k)" for row in shown])
    axes.set_title(title, loc="left", fontsize=10)
    axes.set_xlabel("accuracy less LoRA's, points")


def draw_curves(axes: Axes, rows: Sequence[Row], label: str, *, logarithmic: bool = False) -> None:
    """Accuracy along an axis for each method; a method without values on it is a level line."""
    lines: dict[str, list[Row]] = defaultdict(list)
    for row in rows:
        lines[row["variant"]].append(row)
    for variant, points in lines.items():
        means = [100 * row["score"]["mean"] for row in points]
        if points[0]["value"] is None:
            axes.axhline(means[0], color=COLOURS[variant], linestyle="--", label=points[0]["method"])
            continue
        axes.errorbar(
            [row["value"] for row in points], means, [half_width(row["score"]) for row in points],
            marker="o", capsize=3, color=COLOURS[variant], label=points[0]["method"],
        )  # fmt: skip
    if logarithmic:
        values = sorted({row["value"] for row in rows})
        axes.set_xscale("log", base=2)
        axes.set_xticks(values, [str(value) for value in values])
    axes.set_xlabel(label)
    axes.set_ylabel("accuracy, %")
    axes.legend(frameon=False, fontsize=9)


def draw_bars(axes: Axes, scores: Mapping[str, Mapping[str, Mapping[str, Any]]]) -> None:
    """Bars of several methods for each group; scores: group -> method -> its score."""
    methods = list(dict.fromkeys(method for found in scores.values() for method in found))
    width = 0.8 / len(methods)
    for place, method in enumerate(methods):
        colour = next((c for name, c in COLOURS.items() if name in method.lower()), "0.5")
        for at, found in enumerate(scores.values()):
            if method in found:
                axes.bar(
                    at + (place - (len(methods) - 1) / 2) * width, 100 * found[method]["mean"], width * 0.92,
                    yerr=half_width(found[method]), capsize=3, color=colour, label=method if at == 0 else None,
                )  # fmt: skip
    axes.set_xticks(range(len(scores)), list(scores))
    axes.set_ylabel("accuracy, %")
    axes.legend(frameon=False, fontsize=9)


def scores_of(parts: Mapping[str, Any], names: Mapping[str, str]) -> dict[str, dict[str, Any]]:
    """Title of a part -> LoRA's and MokA's scores, of the parts that were run."""
    return {
        title: {row["method"]: row["score"] for row in rows_of(parts, part) if row["variant"] in COLOURS}
        for part, title in names.items()
        if rows_of(parts, part)
    }


def draw_all(parts: Mapping[str, Any]) -> dict[str, Figure]:
    """Name of a picture -> the picture, of the parts that were run."""
    figures = {}
    tables = {"equal rank": rows_of(parts, "equal_rank"), "equal parameters": rows_of(parts, "equal_parameters")}
    if any(tables.values()):
        figures["comparison_methods"] = figure = Figure(figsize=(11, 4.6), layout="constrained")
        for axes, (title, rows) in zip(figure.subplots(1, 2, sharex=True), tables.items(), strict=True):
            draw_differences(axes, rows, title)
    axes_of = {"rank": ("rank", True), "cross_scale": ("lambda of MokA (trained with it)", False)}
    if any(rows_of(parts, part) for part in axes_of):
        figures["comparison_axes"] = figure = Figure(figsize=(10, 3.8), layout="constrained")
        for axes, (part, (label, is_log)) in zip(figure.subplots(1, 2), axes_of.items(), strict=True):
            draw_curves(axes, rows_of(parts, part), label, logarithmic=is_log)
    for name, titles in (("comparison_modalities", MODALITIES), ("comparison_harder", HARDER)):
        if scores := scores_of(parts, titles):
            figures[name] = figure = Figure(figsize=(6.4, 3.6), layout="constrained")
            draw_bars(figure.subplots(), scores)
    return figures


def table_of(rows: Sequence[Row]) -> str:
    """A part's rows in Markdown, the best first."""
    lines = [
        "| method | r | parameters | accuracy, % | less LoRA's | 95 %, t | 95 %, bootstrap | seeds | time |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for row in sorted(rows, key=lambda row: -row["score"]["mean"]):
        score, gap = row["score"], row["difference"] or {}
        cells = [
            row["label"],
            str(row["rank"]),
            f"{row['parameters'] / 1000:.0f} k",
            f"{100 * score['mean']:.1f} ± {100 * (score['sd'] or 0):.1f}",
            f"{100 * gap['mean']:+.1f}" if gap else "",
            *(
                f"{100 * ends[0]:+.1f} to {100 * ends[1]:+.1f}" if ends else ""
                for ends in (gap.get("interval"), gap.get("bootstrap"))
            ),
            f"{len(gap['seeds'])}" if gap else f"{score['count']}",
            f"{row['seconds_ratio']:.2f}" if row["seconds_ratio"] else "1",
        ]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--results", type=Path, default=RESULTS / "compare_cpu.json")
    parser.add_argument("--out", type=Path, default=IMAGES)
    options = parser.parse_args()
    parts = json.loads(options.results.read_text(encoding="utf-8"))["parts"]
    for name, figure in draw_all(parts).items():
        figure.savefig(options.out / f"{name}.png", dpi=110)
        print(options.out / f"{name}.png")
    for part in parts:
        print(f"\n{part}\n\n{table_of(rows_of(parts, part))}")


if __name__ == "__main__":
    main()
