"""The files that a comparison leaves: a page to read, tables to compute with, and everything as JSON."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from moka_peft.analysis.compare.lines import summarise
from moka_peft.analysis.compare.report.files import comparison_json, runs_csv, summary_csv
from moka_peft.analysis.compare.report.page import draw_page
from moka_peft.analysis.compare.results import Table
from moka_peft.training.folder import write_json, write_whole

PAGE, RUNS, SUMMARY, DATA = "report.html", "results.csv", "summary.csv", "comparison.json"


def write_reports(
    tables: Sequence[Table], folder: Path, *, title: str, notes: Sequence[str], settings: Mapping[str, Any]
) -> None:
    """Writes the report of `tables` into `folder`, each file whole or not at all.

    `report.html`: plots and numbers, opens offline. `results.csv`: a line per run. `summary.csv`: a line per row of a
    table. `comparison.json`: all of it, with `title`, `notes` and the `settings` that were compared under.
    """
    folder.mkdir(parents=True, exist_ok=True)
    summaries = [(table, summarise(table)) for table in tables]
    write_whole(folder / RUNS, runs_csv(summaries))
    write_whole(folder / SUMMARY, summary_csv(summaries))
    write_json(folder / DATA, comparison_json(summaries, title=title, notes=notes, settings=settings))
    write_whole(folder / PAGE, draw_page(summaries, title=title, notes=notes, settings=settings))
