"""MMBench: one of up to four choices, by letter (Liu et al., ECCV 2024, arXiv 2307.06281).

ROOT/MMBench_DEV_EN.tsv     # columns index, question, hint, A, B, C, D, answer, category, image (base64)
or mmbench_dev_en_20231003.tsv, mmbench_dev_20230712.tsv, or whatever the only .tsv in ROOT is called

A row's image may be the index of another row, whose picture it shares. The published files repeat each question with
its choices moved round, for circular evaluation; there is none here: each row counts by itself, as it did for the
method's authors. Questions hold their pictures encoded, each once; while the file is read all its text is held, too.
"""

import base64
import csv
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from moka_peft.data.containers.table import Table
from moka_peft.data.datasets.layout import text_field
from moka_peft.data.formats.row import Row
from moka_peft.evaluation import letters
from moka_peft.evaluation.benchmark import Benchmark
from moka_peft.evaluation.question import Question
from moka_peft.evaluation.record import Protocol, Record
from moka_peft.evaluation.rows import layout, rows_of
from moka_peft.evaluation.score import Judged, Score, score_shares

NAMES = ("MMBench_DEV_EN.tsv", "mmbench_dev_en_20231003.tsv", "mmbench_dev_20230712.tsv")
COLUMNS = ("index", "question", "A", "B", "image")
UNANSWERED = "is missing: expected a letter; the test split is published without. Use the dev split."


def load(folder: Path) -> list[Question]:
    """The questions of the file, its hints before them."""
    with _long_cells():
        table = Table(_file(folder), COLUMNS, separator="\t")
    if "answer" not in table.columns:
        raise ValueError(f"{table.path}, line 1: column `answer` {UNANSWERED}")
    rows = list(rows_of(table, folder))
    pictures = _Pictures({text_field(row, "index"): str(row.data["image"]).strip() for row in rows})
    return [_question(row, pictures) for row in rows]


def _file(folder: Path) -> Path:
    files = sorted(folder.glob("*.tsv"))
    only = [files[0].name] if len(files) == 1 else []
    return layout("mmbench", folder).find("the table of questions", *NAMES, *only)


@contextmanager
def _long_cells() -> Iterator[None]:
    """Lets `csv` read pictures: its own limit is 131,072 characters."""
    limit = csv.field_size_limit(2**31 - 1)
    try:
        yield
    finally:
        csv.field_size_limit(limit)


def _question(row: Row, pictures: "_Pictures") -> Question:
    if letters.cell(row, "answer") is None:
        raise row.fail("answer", UNANSWERED)
    choices = letters.choices_of(row, {letter: letter for letter in "ABCD"})
    text = "\n".join(filter(None, [letters.cell(row, "hint"), text_field(row, "question")]))
    facts = {"choices": choices, "category": letters.cell(row, "category")}
    right = letters.reference_of(row, choices)
    return Question(text_field(row, "index"), text, right, (pictures.of(row),), facts=facts, where=row.where)


@dataclass
class _Pictures:
    """The pictures of a file, each decoded from base64 once; cells: a row's index -> its image cell."""

    cells: Mapping[str, str]
    decoded: dict[str, bytes] = field(default_factory=dict)

    def of(self, row: Row) -> bytes:
        """A row's picture. Raises ValueError where it has none."""
        cell = text_field(row, "image")
        cell = self.cells.get(cell, cell)
        if cell not in self.decoded:
            try:
                self.decoded[cell] = b"" if cell.isdecimal() else base64.b64decode(cell, validate=True)
            except ValueError:
                self.decoded[cell] = b""
        if not self.decoded[cell]:
            problem = f"expected base64 or the index of a row that has it, got {cell[:40]!r}."
            raise row.fail("image", f"{problem} Download the file again.")
        return self.decoded[cell]


def score(records: Sequence[Record], judged: Sequence[Judged], protocol: Protocol) -> Score:
    """Accuracy over all rows, and per category where records name one."""
    return score_shares(records, judged, lambda record: letters.named(record, "category"))


BENCHMARK = Benchmark(
    "MMBench",
    load,
    letters.prompt,
    letters.parse,
    score,
    template=letters.TEMPLATE,
    published={"all": 4329},  # rows of the dev split in English since October 2023; that of July has a few more
)
