"""Trains the quickstart with several seeds, MokA and LoRA of the same rank, and records what each run reached.

    python bench/quickstart_seeds.py                           # 3 seeds of both, about 20 minutes on 2 cores
    python bench/quickstart_seeds.py --seeds 0 --methods moka

Each run is the command a user types, in a process of its own. Writes bench/results/quickstart.json.
"""

import argparse
import json
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from moka_peft.cli.env import environment

ROOT = Path(__file__).resolve().parents[1]
RECIPE = "recipes/quickstart.yaml"


def run_once(method: str, seed: int, out: Path, settings: Sequence[str]) -> dict[str, Any]:
    """Trains once and returns the scores before and after with the seconds it took, start of Python included."""
    command = ["moka", "train", RECIPE, f"adapter.method={method}", f"seed={seed}", f"output_dir={out}"]
    start = time.monotonic()
    subprocess.run(
        [sys.executable, "-c", "from moka_peft.cli import main; main()", *command[1:], "overwrite=true", *settings],
        cwd=ROOT,
        check=True,
    )
    seconds = time.monotonic() - start
    metrics = json.loads((ROOT / out / "metrics.json").read_text())
    return {
        "method": method,
        "seed": seed,
        "command": " ".join([*command, *settings]),
        "seconds": round(seconds, 1),
        "training_seconds": round(metrics["seconds"], 1),
        "steps": metrics["steps"],
        "trained_parameters": metrics["trained_parameters"],
        "num_threads": metrics["num_threads"],
        "before": metrics["before"],
        "after": metrics["after"],
    }


def summarise(runs: Sequence[dict[str, Any]]) -> dict[str, dict[str, dict[str, float]]]:
    """Per method and group: mean accuracy before and after, and the smallest gain of a seed, in per cent points."""
    summary: dict[str, dict[str, dict[str, float]]] = {}
    for method in dict.fromkeys(run["method"] for run in runs):
        own = [run for run in runs if run["method"] == method]
        summary[method] = {}
        for group in own[0]["after"]:
            before, after = ([100 * run[when][group]["accuracy"] for run in own] for when in ("before", "after"))
            summary[method][group] = {
                "before": round(sum(before) / len(own), 1),
                "after": round(sum(after) / len(own), 1),
                "smallest_gain": round(min(a - b for a, b in zip(after, before, strict=True)), 1),
            }
    return summary


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--methods", nargs="+", default=["moka", "lora"])
    parser.add_argument("--out", type=Path, default=ROOT / "bench" / "results" / "quickstart.json")
    parser.add_argument("settings", nargs="*", help="key=value over the recipe")
    options = parser.parse_args()
    runs = []
    for method in options.methods:
        for seed in options.seeds:
            folder = Path("runs") / "quickstart_seeds" / f"{method}-{seed}"
            runs.append(run_once(method, seed, folder, options.settings))
            result = {"environment": environment(), "summary": summarise(runs), "runs": runs}
            options.out.write_text(json.dumps(result, indent=2) + "\n")
    print(json.dumps(summarise(runs), indent=2))


if __name__ == "__main__":
    main()
