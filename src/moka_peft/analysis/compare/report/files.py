"""A comparison's numbers for other programs: CSV and JSON."""

import csv
import io
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict
from typing import Any

from moka_peft.analysis.compare.lines import Line
from moka_peft.analysis.compare.results import Table

Summaries = Sequence[tuple[Table, Sequence[Line]]]
GROUP = "group: "


def runs_csv(summaries: Summaries) -> str:
    """A line per run, with the tables that it stands in, and a column per question group."""
    rows: dict[str, dict[str, Any]] = {}
    for table, lines in summaries:
        for line in lines:
            for run in line.results.values():
                row = rows.setdefault(run.cell, {"tables": "", **run.as_json()})
                row["tables"] = "; ".join(filter(None, [row["tables"], table.name]))
    for row in rows.values():
        row |= _of_groups(row.pop("groups"))
    return _csv(rows.values())


def summary_csv(summaries: Summaries) -> str:
    """A line per row of a table."""
    rows = []
    for table, lines in summaries:
        for line in lines:
            facts = line_json(line)
            groups = {f"{name} {key}": value[key] for name, value in facts.pop("groups").items() for key in value}
            del facts["cells"]
            rows.append({"table": table.name, **_flat(facts), **_of_groups(groups)})
    return _csv(rows)


def comparison_json(
    summaries: Summaries, *, title: str, notes: Sequence[str], settings: Mapping[str, Any]
) -> dict[str, Any]:
    """Everything: tables as lists of rows, each with its numbers and the names of its runs by seed."""
    tables = [
        {
            "name": table.name,
            "axis": table.axis,
            "baseline": table.baseline,
            "rows": [line_json(line) for line in lines],
        }
        for table, lines in summaries
    ]
    return {"title": title, "notes": list(notes), "settings": dict(settings), "tables": tables}


def line_json(line: Line) -> dict[str, Any]:
    """A line as plain data, with its verdict, and seed -> the name of its run and its score in place of results."""
    plain = {key: value for key, value in vars(line).items() if key not in ("results", "groups")}
    for key in ("score", "seconds", "difference"):
        plain[key] = asdict(plain[key]) if plain[key] is not None else None
    cells = {str(seed): {"cell": run.cell, "score": run.score} for seed, run in sorted(line.results.items())}
    groups = {name: asdict(group) for name, group in line.groups.items()}
    return plain | {"verdict": line.verdict, "groups": groups, "cells": cells}


def _flat(facts: Mapping[str, Any]) -> dict[str, Any]:
    """Parts of a fact, and the ends of its intervals, in columns of their own."""
    flat: dict[str, Any] = {}
    for key, value in facts.items():
        if key == "difference":
            value = value or dict.fromkeys(("seeds", "mean", "sd", "interval", "p", "bootstrap", "missing"))
        if key in ("interval", "bootstrap"):
            value = dict(zip(("low", "high"), value or (None, None), strict=True))
        if isinstance(value, Mapping):
            flat |= {f"{key} {name}": part for name, part in _flat(value).items()}
        else:
            flat[key] = value
    return flat


def _of_groups(values: Mapping[str, Any]) -> dict[str, Any]:
    return {GROUP + name: value for name, value in values.items()}


def _csv(rows: Iterable[Mapping[str, Any]]) -> str:
    """Rows with the columns of all of them; a list or dict is written as JSON, None as nothing."""
    rows = list(rows)
    columns = list(dict.fromkeys(key for row in rows for key in row))
    text = io.StringIO()
    writer = csv.DictWriter(text, columns, lineterminator="\n")
    writer.writeheader()
    writer.writerows({key: _plain(value) for key, value in row.items()} for row in rows)
    return text.getvalue()


def _plain(value: Any) -> Any:
    return json.dumps(value, ensure_ascii=False) if isinstance(value, dict | list | tuple) else value
