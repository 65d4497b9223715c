"""JSON lines, read by the place of each line in the file."""

from pathlib import Path
from typing import Any

import numpy as np

from moka_peft.data.containers.contents import NumberedRows, parse_json


class JsonLines(NumberedRows):
    """Rows of a .jsonl or .ndjson file; holds 8 bytes for each. Blank lines are no rows."""

    def __init__(self, path: Path, folder: Path | None = None):
        super().__init__(path, folder)
        starts, position = [], 0
        with path.open("rb") as file:
            for line in file:
                if line.strip():
                    starts.append(position)
                position += len(line)
        self.sizes = [len(starts)]
        self._starts = np.array([*starts, position], dtype=np.int64)

    def data(self, index: int) -> Any:
        start, end = self._starts[index : index + 2].tolist()
        with self.path.open("rb") as file:
            file.seek(start)
            content = file.read(end - start)
        try:
            return parse_json(content, "")
        except ValueError as error:
            raise ValueError(f"{self.where(index)}, `line {self._line(start)}`{error}") from error

    def _line(self, start: int) -> int:
        """The number of the line that begins at a byte; counted only for an error."""
        with self.path.open("rb") as file:
            return file.read(start).count(b"\n") + 1
