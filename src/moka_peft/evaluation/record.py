"""Answers to a benchmark's questions, as files hold them: ours, and those that the benchmarks' authors released."""

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

Protocol = Literal["strict", "authors"]
PROTOCOLS: tuple[Protocol, ...] = ("strict", "authors")

FORMS = (
    ("prediction", "reference"),  # ours
    ("predict", "output"),  # MokA's authors: AVE, MUSIC-AVQA
    ("output", "answer"),  # MokA's authors: MME, MMBench, SEED-Bench, POPE
    ("model_prediction", "answer"),  # MMAU's own script
    ("model_output", "answer"),  # the same, later
    ("response", "answer_gt"),  # AIR-Bench's own script
)
"""The keys of what a model said and of what is right, in the files that can be read."""

OURS = ("id", "question", "reference", "prediction", "parsed", "right")


@dataclass(frozen=True)
class Record:
    """What a model said to one question.

    prediction: its words, untouched. facts: what scoring needs beside, by the names of `Benchmark.needs`, with
    whatever else a file has. where: file and row. reference_key: under which key the file has the reference.
    """

    id: str
    question: str
    reference: str
    prediction: str
    facts: Mapping[str, Any] = field(default_factory=dict)
    where: str = ""
    reference_key: str = "reference"

    def wrong_reference(self, expected: str) -> ValueError:
        """The error, to be raised, of a reference that is none."""
        got = f"got {self.reference[:80]!r}"
        return ValueError(f"{self.where}, `{self.reference_key}`: expected {expected}, {got}. Correct the record.")


def read_records(path: str | Path, needs: Mapping[str, Sequence[str]]) -> list[Record]:
    """The records of a file of JSON lines, or of one JSON list.

    needs: the facts that scoring needs, and for each the keys under which a file may have it. Raises ValueError, naming
    file, row and key, for what cannot be read, FileNotFoundError where there is no such file.
    """
    path = Path(path)
    records = [_record(row, where, needs) for where, row in _rows(path)]
    if not records:
        raise ValueError(f"`{path}` holds no records: expected at least one. Give another file.")
    _check_ids(records)
    return records


def _rows(path: Path) -> Iterator[tuple[str, Any]]:
    """Each row and where it stands."""
    if not path.is_file():
        raise FileNotFoundError(f"records `{path}` not found. Correct the path.")
    try:
        text = path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise ValueError(f"{path}: expected UTF-8, got other bytes: {error}. Convert the file.") from error
    if text.lstrip().startswith("["):
        yield from ((f"{path}, row {number}", row) for number, row in enumerate(_parse(text, str(path)), 1))
        return
    for number, line in enumerate(text.split("\n"), 1):
        if line.strip():
            where = f"{path}, line {number}"
            yield where, _parse(line, where)


def _parse(text: str, where: str) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        remedy = "Write one record a line, or all as one list; remove a torn last line."
        raise ValueError(f"{where}: no JSON: {error}. {remedy}") from error


def _record(row: Any, where: str, needs: Mapping[str, Sequence[str]]) -> Record:
    if not isinstance(row, dict):
        raise ValueError(f"{where}: expected an object, got {str(row)[:80]!r}. Give a file of records.")
    said, right = next((form for form in FORMS if form[0] in row and form[1] in row), (None, None))
    if said is None or right is None:
        known = "; ".join(f"`{said}` and `{right}`" for said, right in FORMS)
        raise ValueError(
            f"{where}: has the keys of no known record: expected {known}, got "
            f"{', '.join(row) or 'none'}. Give a file of records."
        )
    facts = {key: value for key, value in row.items() if key not in OURS}
    for name, keys in needs.items():
        key = next((key for key in keys if row.get(key) is not None), None)
        if key is None:
            raise ValueError(f"{where}: `{keys[0]}` is missing: expected {' or '.join(keys)}. Add it to each record.")
        facts[name] = row[key]
    texts = {"prediction": _text(row, said, where), "reference": _text(row, right, where)}
    named = {key: "" if row.get(key) is None else str(row[key]) for key in ("id", "question")}
    return Record(**named, **texts, facts=facts, where=where, reference_key=right)


def _text(row: Mapping[str, Any], key: str, where: str) -> str:
    """A text, or the only one of a list."""
    value = row[key]
    if isinstance(value, list) and len(value) == 1:
        value = value[0]
    if not isinstance(value, str):
        raise ValueError(f"{where}, `{key}`: expected a text, or a list of one, got {str(value)[:80]!r}. Correct it.")
    return value


def _check_ids(records: Sequence[Record]) -> None:
    """Raises ValueError where two of our records answer the same question."""
    seen: dict[str, str] = {}
    for record in records:
        is_ours = record.id and record.reference_key == FORMS[0][1]  # others count what they hold twice
        if is_ours and (earlier := seen.setdefault(record.id, record.where)) != record.where:
            raise ValueError(
                f"{record.where}: `id` {record.id} stands in {earlier}, too: expected each question once. Remove one."
            )
