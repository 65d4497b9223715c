"""Records made by hand, and what a protocol makes of them."""

import json
from pathlib import Path
from typing import Any

from moka_peft.evaluation import BENCHMARKS, Judged, Protocol, Record, Summary, read_records, summarise


def write_records(folder: Path, rows: list[dict[str, Any]], name: str = "records.jsonl") -> Path:
    """A file of JSON lines."""
    path = folder / name
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def judge(benchmark: str, prediction: str, reference: str, protocol: Protocol, **facts: Any) -> Judged:
    """What a protocol makes of one prediction."""
    return BENCHMARKS[benchmark].parse(Record("", "", reference, prediction, facts), protocol)


def scored(benchmark: str, path: Path, protocol: Protocol) -> Summary:
    """The result of a file of records."""
    known = BENCHMARKS[benchmark]
    return summarise(benchmark, known, read_records(path, known.needs), protocol)
