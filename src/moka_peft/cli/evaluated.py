"""What `moka eval` found, as tables for the terminal or one JSON object."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

if TYPE_CHECKING:
    from rich.console import Console

    from moka_peft.evaluation import Record
    from moka_peft.evaluation.comparison import Comparison
    from moka_peft.evaluation.target import Target
    from moka_peft.evaluation.task import Task

    Planned = Sequence[tuple[Target, list[Task]]]
    Found = Mapping[str, Mapping[str, list[Record]]]


def report(
    planned: "Planned",
    folders: Mapping[str, Path],
    records: "Found",
    compare: bool,
    as_json: bool,
    console: "Console",
) -> None:
    """Shows each target's results and, to `compare`, how far the others are from the first one's.

    planned: the targets with their tasks. folders: where each target's records lie. records: by target and benchmark.
    """
    from moka_peft.evaluation.table import comparison_table

    comparisons = _compared(planned, records) if compare else {}
    if as_json:
        print(json.dumps(_as_json(planned, folders, comparisons), allow_nan=False))
        return
    for target, tasks in planned:
        _show(target, tasks, folders[target.name], records[target.name], console)
    for both in comparisons.values():
        console.print(comparison_table(both["strict"]))


def check_comparable(planned: "Planned") -> None:
    """Raises ValueError where targets would not be asked the same questions, typer.BadParameter where no benchmark is
    asked of all."""
    from moka_peft.evaluation import Record
    from moka_peft.evaluation.same_questions import pair_by_id

    (baseline, first), *others = [(target.name, {task.name: task for task in tasks}) for target, tasks in planned]
    shared = [name for name in first if all(name in tasks for _, tasks in others)]
    if not shared:
        raise typer.BadParameter(
            "has nothing to compare: expected a benchmark that all targets are asked, got none. Name it with "
            "`--benchmarks`.",
            param_hint="--compare",
        )
    for name in shared:
        runs = {
            target: [Record(one.id, one.text, one.reference, "", where=one.where) for one in tasks[name].asked]
            for target, tasks in [(baseline, first), *others]
        }
        for target, _ in others:
            pair_by_id(name, runs, baseline, target)


def _show(
    target: "Target", tasks: "Sequence[Task]", folder: Path, records: "Mapping[str, list[Record]]", console: "Console"
) -> None:
    from moka_peft.evaluation.run_folder import summaries_of
    from moka_peft.evaluation.table import summary_table

    console.print(f"{target.name}, records and summaries in {folder}:", soft_wrap=True, highlight=False, markup=False)
    console.print(summary_table({task.name: summaries_of(records[task.name], task) for task in tasks}))


def _compared(planned: "Planned", records: "Found") -> "dict[str, dict[str, Comparison]]":
    """The targets beside the first one, by benchmark and protocol; only benchmarks that all of them were asked."""
    from moka_peft.evaluation import PROTOCOLS
    from moka_peft.evaluation.comparison import compare_records

    shared = [task for task in planned[0][1] if all(task.name in found for found in records.values())]
    runs = {task.name: {name: found[task.name] for name, found in records.items()} for task in shared}
    return {
        task.name: {one: compare_records(task.benchmark, task.name, runs[task.name], one) for one in PROTOCOLS}
        for task in shared
    }


def _as_json(
    planned: "Planned",
    folders: Mapping[str, Path],
    comparisons: "Mapping[str, Mapping[str, Comparison]]",
) -> dict[str, Any]:
    from moka_peft.evaluation.run_folder import SUMMARY
    from moka_peft.training.folder import read_json

    found: dict[str, Any] = {"targets": {}}
    for target, tasks in planned:
        folder = folders[target.name]
        results = {task.name: read_json(folder / task.name / SUMMARY) for task in tasks}
        found["targets"][target.name] = {"folder": str(folder), "benchmarks": results}
    if comparisons:
        found["comparisons"] = {
            name: {protocol: one.as_json() for protocol, one in both.items()} for name, both in comparisons.items()
        }
    return found
