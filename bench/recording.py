"""Where results go, and what is said beside every one of them."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import torch

from moka_peft.cli.env import environment

RESULTS = Path(__file__).parent / "results"
IMAGES = Path(__file__).parents[1] / "docs" / "images"


def options_of(description: str, script: str) -> argparse.ArgumentParser:
    """A parser with the options that every timing has. `script`: "bench_delta"."""
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=25, help="repetitions of every provider")
    parser.add_argument("--warmup", type=int, default=3, help="rounds before them")
    parser.add_argument("--attempts", type=int, default=3, help="runs until one is not void")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--device", choices=["cpu", "cuda"], default="cpu")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, default=RESULTS / f"{script.removeprefix('bench_')}.json")
    return parser


def timing(options: argparse.Namespace) -> dict[str, Any]:
    """What of `options` goes to `measure`."""
    names = ("rounds", "warmup", "attempts", "seed", "device")
    return {name: getattr(options, name) for name in names} | {"say": say}


def header(script: str, options: argparse.Namespace, arguments: Sequence[str] | None) -> dict[str, Any]:
    """The machine, the command and the seed."""
    words = sys.argv[1:] if arguments is None else arguments
    return {
        "environment": environment(),
        "command": " ".join(["python", f"bench/{script}.py", *words]),
        "seed": options.seed,
        "dtype": str(torch.get_default_dtype()).removeprefix("torch."),
    }


def write(path: Path, record: dict[str, Any]) -> None:
    """Whole or not at all: a run that is stopped keeps what it had."""
    path.parent.mkdir(parents=True, exist_ok=True)
    draft = path.with_suffix(".part")
    draft.write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")
    draft.replace(path)


def say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


def table(columns: Sequence[str], rows: Iterable[Sequence[Any]]) -> str:
    """A Markdown table."""
    lines = [list(columns), ["---"] * len(columns), *rows]
    return "\n".join("| " + " | ".join("" if cell is None else str(cell) for cell in line) + " |" for line in lines)
