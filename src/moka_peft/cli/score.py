"""`moka score`: the number that a file of a model's answers comes to, as we count and as the method's authors did."""

import json
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

if TYPE_CHECKING:
    from moka_peft.evaluation import Protocol, Summary


def run(
    benchmark: Annotated[
        str,
        typer.Argument(
            metavar="BENCHMARK", help="one of music_avqa, ave, mme, mmbench, pope, seed_bench, mmau, air_bench"
        ),
    ],
    file: Annotated[
        Path,
        typer.Argument(
            metavar="FILE",
            help="records, ours or as the benchmarks' authors write them; or a folder of `moka eval`",
        ),
    ],
    protocol: Annotated[
        Literal["strict", "authors"] | None, typer.Option(help="none: both; with --json strict")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object instead of tables.")] = False,
) -> None:
    """Score a file of answers to a benchmark; nothing is run.

    strict: what the benchmark's own scoring means, the number to report. authors: as MokA's authors count, for a
    comparison with what they published.
    """
    from moka_peft.evaluation import BENCHMARKS, PROTOCOLS, read_records, summarise

    if benchmark not in BENCHMARKS:
        raise typer.BadParameter(f"expected one of {', '.join(BENCHMARKS)}, got {benchmark}.", param_hint="BENCHMARK")
    known, start = BENCHMARKS[benchmark], time.perf_counter()
    records = read_records(_records(file, benchmark), known.needs)
    protocols: Sequence[Protocol] = (protocol or "strict",) if protocol or as_json else PROTOCOLS
    results: dict[Protocol, Summary] = {one: summarise(benchmark, known, records, one) for one in protocols}
    seconds = time.perf_counter() - start
    if as_json:
        [result] = results.values()
        print(json.dumps(result.as_json() | {"seconds": round(seconds, 3)}, allow_nan=False))
        return
    from rich.console import Console

    from moka_peft.evaluation.table import details_table, groups_table, summary_table

    console = Console()
    for table in (summary_table({benchmark: results}), groups_table(results), details_table(results)):
        if table is not None:
            console.print(table)
            console.print()


def _records(path: Path, benchmark: str) -> Path:
    """The file of records itself, or the one that `moka eval` wrote into a folder."""
    if not path.is_dir():
        return path
    places = [path / "records.jsonl", path / benchmark / "records.jsonl"]
    found = next((place for place in places if place.is_file()), None)
    if found is None:
        expected = " or ".join(str(place) for place in places)
        raise FileNotFoundError(
            f"records of {benchmark} not found: expected {expected}. Give another folder, or a file."
        )
    return found
