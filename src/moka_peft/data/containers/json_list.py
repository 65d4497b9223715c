"""A JSON file with a list of rows: kept whole, or read by the place of each row in the file."""

import mmap
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from moka_peft.data.containers.contents import NumberedRows, parse_json

_TOKEN = re.compile(rb'"[^"\\]*(?:\\.[^"\\]*)*"|[\[\]{},]', re.DOTALL)


class JsonList(NumberedRows):
    """Rows of a JSON file that is read once, at the start."""

    def __init__(self, path: Path, folder: Path | None = None):
        super().__init__(path, folder)
        self._rows = parse_json(path.read_bytes(), str(path))
        if not isinstance(self._rows, list):
            raise ValueError(
                f"{path}: expected a list of rows, got {type(self._rows).__name__}. "
                "Wrap the rows in [ ]; a file with one row per line needs the suffix .jsonl."
            )
        self.sizes = [len(self._rows)]

    def data(self, index: int) -> Any:
        return self._rows[index]


class StreamedJsonList(NumberedRows):
    """Rows of a JSON file of which 16 bytes each are held: where it begins and ends."""

    def __init__(self, path: Path, folder: Path | None = None):
        super().__init__(path, folder)
        with path.open("rb") as file:
            if not file.read(1):
                raise ValueError(f"{path}: expected a list of rows, got an empty file. Replace it.")
            with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
                self._spans = np.array(list(_row_spans(content, path)), dtype=np.int64).reshape(-1, 2)
        self.sizes = [len(self._spans)]

    def data(self, index: int) -> Any:
        start, end = self._spans[index].tolist()
        with self.path.open("rb") as file:
            file.seek(start)
            return parse_json(file.read(end - start), self.where(index) + ", `row`")


def _row_spans(content: mmap.mmap, path: Path) -> Iterator[tuple[int, int]]:
    """The bytes between the commas of the outermost list. Raises ValueError where there is no such list."""
    depth, start = 0, None
    for token in _TOKEN.finditer(content):
        mark = token[0]
        if depth == 0 and mark != b"[":
            raise ValueError(
                f"{path}: expected one list of rows, got {mark[:20]!r} at byte {token.start()}. Wrap the rows in [ ]; "
                "a file with one row per line needs the suffix .jsonl."
            )
        if mark in (b"[", b"{"):
            depth += 1
            start = token.end() if depth == 1 else start
        elif depth == 1 and mark in (b",", b"]") and start is not None:
            if mark == b"," or content[start : token.start()].strip():
                yield start, token.start()
            start = token.end()
        if mark in (b"]", b"}"):
            depth -= 1
    if depth or start is None:
        raise ValueError(f"{path}: not valid JSON: it ends inside a list or object. Copy the file again.")
