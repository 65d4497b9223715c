"""Runs the benchmark suite of recipes/compare on a CPU: every method under equal conditions, and the ablations.

    python bench/compare_cpu.py --processes 2                  # everything; interrupted, it goes on where it was
    python bench/compare_cpu.py --only equal_rank rank         # a part of it
    python bench/compare_cpu.py --report-only                  # records what is finished

Each part is one `moka compare` in the folder --out, so that runs which parts share are done once. Writes
bench/results/compare_cpu.json: the tables of all parts, with every run's score; parts that are not run stay in it. The
settings of the recipes were chosen on LoRA alone (bench/compare_settings.py).
"""

import argparse
import json
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from recording import RESULTS, write

from moka_peft.analysis.compare.methods import PAPER_TABLE
from moka_peft.cli import call
from moka_peft.cli.env import environment

RECORD = RESULTS / "compare_cpu.json"
MAIN = "recipes/compare/av_digits.yaml"
EVERY_METHOD = ",".join([*PAPER_TABLE, "moka_no_interaction", "moka_shared_a"])
BOTH = ["--methods", "lora,moka", "--equal", "rank", "--seeds", "5"]

PARTS: dict[str, list[str]] = {
    "equal_rank": [MAIN, "--methods", EVERY_METHOD, "--equal", "rank", "--seeds", "5,lora=10,moka=10"],
    "equal_parameters": [MAIN, "--equal", "parameters", "--parameters-of", "moka:6", "--seeds", "5,lora=10,moka=10"],
    "rank": [MAIN, "--methods", "lora,moka", "--seeds", "5", "--vary", "adapter.r=2,4,8,32"],
    "cross_scale": [MAIN, "--methods", "lora,moka", "--seeds", "5", "--vary", "adapter.cross_scale=0.0,0.5,1.0,2.0"],
    "visual": ["recipes/compare/visual.yaml", *BOTH],
    "audio": ["recipes/compare/audio.yaml", *BOTH],
    "reference": ["recipes/compare/av_reference.yaml", *BOTH],
    "shift_images": ["recipes/compare/av_shift_images.yaml", *BOTH],
    "shift_sounds": ["recipes/compare/av_shift_sounds.yaml", *BOTH],
    "shortcut": ["recipes/compare/av_shortcut.yaml", *BOTH],
    "speech": ["recipes/compare/speech.yaml", *BOTH],
}
"""Name of a part -> the words after `moka compare`. At rank 4 N pairs have as many parameters as MokA at rank 6."""


def record(earlier: Mapping[str, Any], names: Sequence[str], out: Path, command: str) -> dict[str, Any]:
    """An earlier record with the tables of the parts `names` that were reported in `out`, and what they ran on."""
    parts = dict(earlier.get("parts", {}))
    for name in names:
        path = out / "reports" / name / "comparison.json"
        if path.is_file():
            facts = {"command": command, "environment": environment()}
            parts[name] = facts | json.loads(path.read_text(encoding="utf-8"))
    return {"parts": {name: parts[name] for name in PARTS if name in parts}}


def main(arguments: Sequence[str] | None = None) -> None:
    words = list(sys.argv[1:] if arguments is None else arguments)
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="+", choices=PARTS, default=list(PARTS))
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--out", type=Path, default=Path("runs/compare/suite"))
    parser.add_argument("--report-only", action="store_true")
    options = parser.parse_args(words)
    failed = []
    for name in options.only:
        common = ["--out", str(options.out), "--name", name, "--processes", str(options.processes)]
        if call(["compare", *PARTS[name], *common, *(["--report-only"] if options.report_only else [])]):
            failed.append(name)
        command = " ".join(["python bench/compare_cpu.py", *words])
        write(RECORD, record(json.loads(RECORD.read_text()) if RECORD.exists() else {}, [name], options.out, command))
    if failed:
        sys.exit(f"not complete: {', '.join(failed)}. Repeat the command to go on.")


if __name__ == "__main__":
    main()
