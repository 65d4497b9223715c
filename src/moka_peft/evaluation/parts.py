"""Answers as they come: each process appends its batches to a file of its own, so that a killed run loses one batch."""

import json
import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class Answered:
    """A batch that is done. predictions: a question's id -> what the model said; seconds: of `processes` at a time."""

    batch: int
    predictions: dict[str, str]
    seconds: float
    processes: int = 1


class Part:
    """A file of answered batches, one JSON object per line; a context manager.

    A line that a killed process tore goes before the next one comes.
    """

    def __init__(self, path: Path):
        path.parent.mkdir(parents=True, exist_ok=True)
        self._file = path.open("ab", buffering=0)
        whole = path.read_bytes().rfind(b"\n") + 1
        os.truncate(path, whole)

    def append(self, answered: Answered) -> None:
        """Adds a batch in one write, and waits until it is on the disk.

        Raises OSError where only its beginning went there: a full disk says so from the next write on.
        """
        line = (json.dumps(asdict(answered), ensure_ascii=False) + "\n").encode()
        if (written := self._file.write(line)) != len(line):
            raise OSError(
                f"`out` took {written} of a batch's {len(line)} bytes: {self._file.name}. Make room on the disk and "
                "repeat the command."
            )
        os.fsync(self._file.fileno())

    def __enter__(self) -> "Part":
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()


def read_parts(folder: Path) -> list[Answered]:
    """The batches in all parts of a folder, whoever wrote them; torn last lines are left out.

    Raises ValueError, naming file and line, for another line that cannot be read.
    """
    found = []
    for path in sorted(folder.glob("*.jsonl")):
        *lines, _ = path.read_bytes().split(b"\n")  # what follows the last line's end is torn, or nothing
        for number, line in enumerate(lines, 1):
            found.append(_read(line, f"{path}, line {number}"))
    return found


def _read(line: bytes, where: str) -> Answered:
    try:
        data: Mapping[str, Any] = json.loads(line)
        return Answered(**data)
    except (ValueError, TypeError) as error:
        raise ValueError(
            f"{where}: no answered batch: {error}. Remove the line; its batch is then done again."
        ) from error
