"""Runs stage 1 and stage 2 of the three scenarios with several seeds, MokA and LoRA, and records what each reached.

    python scripts/build_scenario_models.py --recordings ../shared/data/fsdd
    python bench/scenarios.py --recordings ../shared/data/fsdd         # 3 scenarios x 3 seeds
    python bench/scenarios.py --scenarios st --seeds 0 --methods moka  # a part of them; two may run at once

Each run is a recipe of recipes/scenarios through `moka_peft.training.train`; finished runs are not repeated. Writes
bench/results/scenarios.json and docs/images/scenarios.png from all runs that have finished.
"""

import argparse
import json
import sys
from collections import Counter, defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure

from moka_peft.cli.env import environment
from moka_peft.data.digit_questions import KINDS
from moka_peft.data.digit_strips import SPLITS
from moka_peft.data.spoken_digits import SpokenDigits
from moka_peft.data.spoken_words import SpokenWords
from moka_peft.training import load_recipe, train

ROOT = Path(__file__).resolve().parents[1]
RUNS = Path("runs/scenarios")
SCENARIOS = {"avt": "audio-visual-text", "vt": "visual-text", "st": "speech-text"}
METHODS = ("moka", "lora")
GROUPS = ("all", "known", "new")
QUESTIONS = 300  # as many as the recipes hold out
LINES = {
    "stage1": ("0.45", "stage 1: projectors"),
    "moka": ("tab:blue", "stage 2: MokA"),
    "lora": ("tab:orange", "stage 2: LoRA"),
}


def folder_of(scenario: str, seed: int, what: str) -> Path:
    return RUNS / scenario / f"seed{seed}" / what


def run_scenario(scenario: str, seed: int, methods: Sequence[str], settings: Sequence[str]) -> None:
    """Stage 1 once, then stage 2 with every method from the same projectors; what has finished is left as it is."""
    first = folder_of(scenario, seed, "stage1")
    common = [f"seed={seed}", "resume=true", *settings]
    train(load_recipe(f"recipes/scenarios/{scenario}_stage1.yaml", [f"output_dir={first}", *common]))
    for method in methods:
        own = [f"model.start_from=[{first}]", f"adapter.method={method}"]
        own.append(f"output_dir={folder_of(scenario, seed, method)}")
        train(load_recipe(f"recipes/scenarios/{scenario}_stage2.yaml", [*own, *common]))


def speech_settings(scenario: str, recordings: str | None) -> list[str]:
    if recordings is None or scenario == "vt":
        return []
    return [f"data.{part}.folder={recordings}" for part in ("train", "eval")]


def read_run(scenario: str, seed: int, what: str) -> dict[str, Any] | None:
    """What a finished run reached: accuracy of every group in per cent by step, with the interval at the end."""
    path = folder_of(scenario, seed, what) / "metrics.json"
    if not path.is_file():
        return None
    metrics = json.loads(path.read_text(encoding="utf-8"))
    scores = {0: metrics["before"]}
    scores |= {entry["step"]: entry["scores"] for entry in metrics["during"]} | {metrics["steps"]: metrics["after"]}
    return {
        "scenario": scenario,
        "seed": seed,
        "run": what,
        "steps": metrics["steps"],
        "training_seconds": round(metrics["seconds"], 1),
        "trained_parameters": metrics["trained_parameters"],
        "parameters": metrics["parameters"],
        "accuracy": {
            group: {step: round(100 * score[group]["accuracy"], 1) for step, score in sorted(scores.items())}
            for group in GROUPS
        },
        "interval": {
            group: [round(100 * bound, 1) for bound in metrics["after"][group]["interval"]] for group in GROUPS
        },
        "held_out_loss": metrics["held_out_loss"],
    }


def ends(run: dict[str, Any], group: str) -> tuple[float, float]:
    """A run's accuracy at its first and its last step."""
    values = list(run["accuracy"][group].values())
    return values[0], values[-1]


def summarise(runs: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Per scenario and group: mean and every seed's accuracy before stage 1, after it, and after stage 2."""
    columns: dict[tuple[str, str, str], list[float]] = defaultdict(list)
    for run in runs:
        for group in GROUPS:
            before, after = ends(run, group)
            if run["run"] == "stage1":
                columns[run["scenario"], group, "before_stage1"].append(before)
            columns[run["scenario"], group, run["run"]].append(after)
    summary: dict[str, Any] = {}
    for (scenario, group, column), values in columns.items():
        entry = {"mean": round(sum(values) / len(values), 1), "seeds": values}
        summary.setdefault(scenario, {}).setdefault(group, {})[column] = entry
    return summary


def guesses(scenario: str) -> dict[str, dict[str, float]]:
    """What needs no media, in per cent of the held-out questions of a group: the one most frequent answer, and the most
    frequent answer of each kind of question."""
    dataset = SpokenDigits(scenario, "question", "test", QUESTIONS)
    rows = [(facts.question.kind, facts.answer) for facts in map(dataset.facts, range(QUESTIONS)) if facts.question]
    result = {}
    for group in GROUPS:
        own = [(kind, answer) for kind, answer in rows if group in ("all", KINDS[kind].group)]
        by_kind = Counter(own)
        best = sum(max(n for (k, _), n in by_kind.items() if k == kind) for kind in {kind for kind, _ in own})
        most = Counter(answer for _, answer in own).most_common(1)[0][1]
        shares = {"most_frequent_answer": most / len(own), "most_frequent_of_kind": best / len(own)}
        result[group] = {name: round(100 * share, 1) for name, share in shares.items()}
    return result


def draw(runs: Sequence[dict[str, Any]], baselines: dict[str, Any], path: Path) -> None:
    """Accuracy over the steps of both stages, a panel per scenario: mean of the seeds, and the range they cover.

    The kinds of question that the language model never saw are dashed; dotted: the most frequent answer of each kind.
    """
    figure = Figure(figsize=(11, 3.6), layout="constrained")
    for axes, (scenario, title) in zip(figure.subplots(1, 3, sharey=True), SCENARIOS.items(), strict=True):
        start = max(_curve(runs, scenario, "stage1", "all"), default=0)
        for what, (colour, label) in LINES.items():
            offset = 0 if what == "stage1" else start
            _plot(axes, _curve(runs, scenario, what, "all"), offset, colour, label, "-")
            _plot(axes, _curve(runs, scenario, what, "new"), offset, colour, f"{label}, new kinds", "--")
        axes.axhline(baselines[scenario]["all"]["most_frequent_of_kind"], color="0.6", linewidth=1, linestyle=":")
        axes.axvline(start, color="0.85", linewidth=1, zorder=0)
        axes.set(title=title, xlabel="step", ylim=(0, 100))
    figure.axes[0].set_ylabel("held-out questions right (%)")
    figure.legend(*figure.axes[0].get_legend_handles_labels(), frameon=False, loc="outside right upper", fontsize=8)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=120)


def _curve(runs: Sequence[dict[str, Any]], scenario: str, what: str, group: str) -> dict[int, list[float]]:
    """The accuracies of the seeds at every step."""
    own = [run["accuracy"][group] for run in runs if run["scenario"] == scenario and run["run"] == what]
    return {step: [curve[step] for curve in own if step in curve] for step in (own[0] if own else ())}


def _plot(axes: Any, curve: dict[int, list[float]], start: int, colour: str, label: str, style: str) -> None:
    steps, rows = [start + step for step in curve], list(curve.values())
    axes.plot(steps, [sum(row) / len(row) for row in rows], style, color=colour, label=label, linewidth=1.5)
    axes.fill_between(steps, [min(row) for row in rows], [max(row) for row in rows], color=colour, alpha=0.15, lw=0)


def recordings_used(folder: str | None) -> dict[str, Any]:
    """How many recordings each split has, and where the speech comes from."""
    counts = {split: sum(map(len, SpokenWords(split, folder).names.values())) for split in SPLITS}
    return {"speech": "synthesised" if folder is None else "recorded", **counts}


def models() -> dict[str, Any]:
    """How the language model and the encoders were trained, as their script wrote it down."""
    files = sorted((RUNS / "models").glob("*/training.json"))
    return {file.parent.name: json.loads(file.read_text(encoding="utf-8")) for file in files}


def record(out: Path, picture: Path, recordings: str | None) -> None:
    """Collects all finished runs into the result file and the picture."""
    folders = sorted(RUNS.glob("*/seed*"))
    found = [
        read_run(folder.parent.name, int(folder.name.removeprefix("seed")), what)
        for folder in folders
        for what in ("stage1", *METHODS)
        if folder.parent.name in SCENARIOS
    ]
    runs = [run for run in found if run is not None]
    baselines = {scenario: guesses(scenario) for scenario in SCENARIOS}
    result = {
        "command": " ".join(["python bench/scenarios.py", *sys.argv[1:]]),
        "environment": environment(),
        "recordings": recordings_used(recordings),
        "models": models(),
        "guesses": baselines,
        "summary": summarise(runs),
        "runs": runs,
    }
    out.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    draw(runs, baselines, picture)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--scenarios", nargs="+", default=list(SCENARIOS), choices=list(SCENARIOS))
    parser.add_argument("--seeds", type=int, nargs="*", default=[0, 1, 2])
    parser.add_argument("--methods", nargs="+", default=list(METHODS), choices=METHODS)
    parser.add_argument("--recordings", help="a folder of the Free Spoken Digit Dataset")
    parser.add_argument("--out", type=Path, default=ROOT / "bench" / "results" / "scenarios.json")
    parser.add_argument("--picture", type=Path, default=ROOT / "docs" / "images" / "scenarios.png")
    parser.add_argument("settings", nargs="*", help="key=value over the recipes")
    options = parser.parse_args()
    for seed in options.seeds:
        for scenario in options.scenarios:
            settings = speech_settings(scenario, options.recordings)
            run_scenario(scenario, seed, options.methods, [*settings, *options.settings])
    record(options.out, options.picture, options.recordings)


if __name__ == "__main__":
    main()
