"""A folder of chapters, each with the transcripts of its recordings in a `.trans.txt` of lines `NAME TEXT`."""

import hashlib
from bisect import bisect_right
from itertools import accumulate
from pathlib import Path
from typing import Any

import numpy as np

from moka_peft.data.containers.contents import NumberedRows


class Chapters(NumberedRows):
    """The transcripts below FOLDER/SPEAKER/CHAPTER/, in the order of their names; holds 8 bytes for each."""

    def __init__(self, folder: Path):
        super().__init__(folder, None)
        self._files = sorted(folder.glob("*/*/*.trans.txt"))
        starts = [_line_starts(path.read_bytes()) for path in self._files]
        self._ends = list(accumulate(len(lines) for lines in starts))
        self._starts = np.array([start for lines in starts for start in lines], dtype=np.int64)
        self.sizes = [len(self._starts)]
        names = "\n".join(f"{path.name} {path.stat().st_size}" for path in self._files)
        self.fingerprint = hashlib.sha256(names.encode()).hexdigest()

    def where(self, index: int) -> str:
        chapter = bisect_right(self._ends, index)
        first = self._ends[chapter - 1] if chapter else 0
        return f"{self._files[chapter]}, row {index - first + 1}"

    def data(self, index: int) -> Any:
        path = self._files[bisect_right(self._ends, index)]
        with path.open("rb") as file:
            file.seek(int(self._starts[index]))
            line = file.readline()
        try:
            name, _, text = line.decode("utf-8").strip().partition(" ")
        except UnicodeDecodeError as error:
            raise ValueError(f"{self.where(index)}: not UTF-8: {error}. Download the file again.") from error
        return {"name": name, "text": text, "folder": str(path.parent)}


def _line_starts(content: bytes) -> list[int]:
    """Where each line that is not blank begins."""
    starts, position = [], 0
    for line in content.splitlines(keepends=True):
        if line.strip():
            starts.append(position)
        position += len(line)
    return starts
