"""Compares all methods on models of 33 M parameters that it trains first: handwritten digits, and speech.

    python bench/compare_gpu.py --recordings ../shared/data/fsdd
    python bench/compare_gpu.py --recordings ../shared/data/fsdd --minutes 8    # in pieces: repeat it to go on
    python bench/compare_gpu.py --tiny --out runs/try --record runs/try.json    # the same chain in seconds, on a CPU

In order: the language model and both encoders (scripts/build_scenario_models.py --size large), stage 1, the learning
rate, chosen on LoRA alone on other questions than those of the comparison, and recipes/compare/large.yaml: all runs of
a seed before those of the next, LoRA and MokA first. What is finished is not done again, and what is finished of the
comparison is written to bench/results/compare_gpu.json at the end of each piece. Without recordings speech is
synthesised. Several processes share a GPU: the seconds of a run say little there.
"""

from __future__ import annotations

import argparse
import os
import sys
import tarfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from large_models import PARTS, RECIPE, align, build_models, check_base, compared_settings, trial_settings
from recording import RESULTS, say, write

from moka_peft.analysis.compare.methods import PAPER_TABLE
from moka_peft.cli import call
from moka_peft.cli.env import environment
from moka_peft.training.folder import METRICS, read_json

METHODS = ("lora", "moka", *(name for name in PAPER_TABLE if name not in ("lora", "moka")))
RATES = ("5e-4", "1e-3", "2e-3", "4e-3")
SEEDS_OF_TRIALS = 2
WHOLE = ["--methods", ",".join(METHODS), "--seeds", "5,lora=10,moka=10", "--parameters-of", "moka:6"]
TINY = ["--methods", "lora,moka", "--seeds", "1", "--parameters-of", "moka:6"]
LARGE_FILES = ("model.safetensors", "adapter_model.safetensors", "cache", "checkpoints")


def read_options(words: Sequence[str]) -> argparse.Namespace:
    on_gpu, cpus = torch.cuda.is_available(), os.cpu_count() or 1
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--recordings", type=Path, help="a folder of the Free Spoken Digit Dataset")
    parser.add_argument("--minutes", type=float, default=float("inf"), help="start nothing later than this")
    parser.add_argument("--processes", type=int, default=min(12, max(1, cpus - 2)) if on_gpu else 1)
    parser.add_argument("--out", type=Path, default=Path("runs/compare_gpu"))
    parser.add_argument("--record", type=Path, default=RESULTS / "compare_gpu.json")
    parser.add_argument("--archive", type=Path, help="a .tar.gz for all that is in --out but weights and samples")
    parser.add_argument("--tiny", action="store_true", help="models, data and runs of seconds")
    options = parser.parse_args(words)
    if not (options.tiny or on_gpu):
        parser.error("a GPU is needed: expected one that torch sees, got none. Try --tiny.")
    return options


class Clock:
    """What is left of the minutes."""

    def __init__(self, minutes: float):
        self.end = time.monotonic() + 60 * minutes

    @property
    def minutes(self) -> float:
        return max(0.0, (self.end - time.monotonic()) / 60)


def compare_words(options: argparse.Namespace, name: str, settings: Sequence[str], own: Sequence[str]) -> list[str]:
    """A `moka compare` of the recipe whose runs and report are in --out."""
    places = ["--out", str(options.out / "runs"), "--name", name, "--processes", str(options.processes)]
    return ["compare", str(RECIPE), *settings, *own, *places]


def trial_words(options: argparse.Namespace) -> list[str]:
    rates, seeds = (RATES[:2], 1) if options.tiny else (RATES, SEEDS_OF_TRIALS)
    own = ["--methods", "lora", "--vary", f"training.learning_rate={','.join(rates)}", "--seeds", str(seeds)]
    return compare_words(options, "trials", trial_settings(options), own)


def final_words(options: argparse.Namespace, learning_rate: float) -> list[str]:
    chosen = [*compared_settings(options), f"training.learning_rate={learning_rate}"]
    return compare_words(options, "comparison", chosen, TINY if options.tiny else WHOLE)


def run(words: list[str], clock: Clock) -> None:
    """Raises RuntimeError where the comparison fails, which says so itself."""
    limit = [] if clock.minutes == float("inf") else ["--minutes", f"{clock.minutes:.2f}"]
    if call([*words, *limit]):
        raise RuntimeError("not all runs could be made. What was printed says why; repeat the command to go on.")


def report_of(options: argparse.Namespace, name: str) -> dict[str, Any]:
    return read_json(options.out / "runs" / "reports" / name / "comparison.json")


def choose(report: dict[str, Any]) -> float | None:
    """The learning rate with the best mean score of LoRA; None where trials are missing."""
    if not report or any("not finished" in note for note in report["notes"]):
        return None
    [table] = report["tables"]
    return max(table["rows"], key=lambda row: row["score"]["mean"])["value"]


def go_on(options: argparse.Namespace, clock: Clock) -> str:
    """Does what is left, as far as the minutes go; what is left after that, in words."""
    steps = {"the models": build_models, "stage 1": align}
    for name, step in steps.items():
        if not clock.minutes:
            return name
        say(f"{name} ...")
        step(options)
    check_base(options.out)
    if clock.minutes and choose(report_of(options, "trials")) is None:
        say("the learning rate, on LoRA alone ...")
        run(trial_words(options), clock)
    learning_rate = choose(report_of(options, "trials"))
    if learning_rate is None or not clock.minutes:
        return "the comparison, or runs of it"
    say(f"the comparison, at learning rate {learning_rate:g} ...")
    run(final_words(options, learning_rate), clock)
    return next((note for note in report_of(options, "comparison")["notes"] if "not finished" in note), "")


def record(options: argparse.Namespace, command: str) -> dict[str, Any]:
    """All that is known: the models, stage 1, the trials and the comparison, each with its command."""
    stage1 = read_json(options.out / "stage1" / METRICS)
    trials, final = report_of(options, "trials"), report_of(options, "comparison")
    rate = choose(trials)
    return {
        "environment": environment(),
        "command": command,
        "recordings": len(list(options.recordings.glob("*.wav"))) if options.recordings else 0,
        "models": {part: read_json(options.out / "models" / part / "training.json") for part in PARTS},
        "stage1": {key: stage1.get(key) for key in ("steps", "seconds", "after", "held_out_loss")},
        "trials": {"command": command_of(trial_words(options)), "chosen_learning_rate": rate, **trials},
        "comparison": {"command": command_of(final_words(options, rate)) if rate else None, **final},
        "processes": options.processes,
    }


def command_of(words: Sequence[str]) -> str:
    return " ".join(["moka", *words])


def pack(out: Path, path: Path) -> None:
    """Everything in `out` but weights, samples and checkpoints, as one file."""

    def kept(member: tarfile.TarInfo) -> tarfile.TarInfo | None:
        return None if Path(member.name).name in LARGE_FILES else member

    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w:gz") as archive:
        archive.add(out, arcname=out.name, filter=kept)


def main(arguments: Sequence[str] | None = None) -> None:
    words = list(sys.argv[1:] if arguments is None else arguments)
    options = read_options(words)
    options.out.mkdir(parents=True, exist_ok=True)
    try:
        left = go_on(options, Clock(options.minutes))
    finally:
        write(options.record, record(options, " ".join(["python bench/compare_gpu.py", *words])))
        if options.archive:
            pack(options.out, options.archive)
    say(f"left: {left}. Repeat the command to go on." if left else f"complete: {options.record}")


if __name__ == "__main__":
    main()
