"""Text files of one row per line with columns: comma-separated with a header, or with another separator and none."""

import csv
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from moka_peft.data.containers.contents import NumberedRows


class Table(NumberedRows):
    """Rows of a text file as `{column: text}`; holds the texts.

    columns: those that a row must have, in order, where the file names none (then a first line that repeats them is
    no row), or among those that its first line names. Raises ValueError for a file without them.
    """

    def __init__(self, path: Path, columns: Sequence[str], separator: str = ",", header: bool = True):
        super().__init__(path, None)
        self.columns = tuple(columns)
        try:
            with path.open(encoding="utf-8-sig", newline="") as file:
                quoting = csv.QUOTE_MINIMAL if header else csv.QUOTE_NONE
                lines = csv.reader(file, delimiter=separator, quoting=quoting, strict=True)
                self._rows = _rows_of(lines, path)
        except UnicodeDecodeError as error:
            raise ValueError(f"{path}: not a table in UTF-8: {error}. Download it again.") from error
        if header:
            self._take_header(columns)
        elif self._rows and [cell.strip().lower() for cell in self._rows[0]] == [name.lower() for name in columns]:
            self._rows = self._rows[1:]
        self.sizes = [len(self._rows)]

    def _take_header(self, wanted: Sequence[str]) -> None:
        self.columns, self._rows = tuple(self._rows[0]) if self._rows else (), self._rows[1:]
        if missing := [name for name in wanted if name not in self.columns]:
            raise ValueError(
                f"{self.path}, line 1: expected columns {', '.join(wanted)}, got {', '.join(self.columns) or 'none'}: "
                f"{', '.join(missing)} missing. Download the file again."
            )

    def data(self, index: int) -> Any:
        cells = self._rows[index]
        if len(cells) != len(self.columns):
            raise ValueError(
                f"{self.where(index)}, `row`: expected {len(self.columns)} columns ({', '.join(self.columns)}), got "
                f"{len(cells)}. Correct the line."
            )
        return dict(zip(self.columns, cells, strict=True))


def _rows_of(lines: Any, path: Path) -> list[tuple[str, ...]]:
    """Those that are not blank. Raises ValueError for a quote that does not end in its cell: it would take in more."""
    try:
        return [tuple(line) for line in lines if any(cell.strip() for cell in line)]
    except csv.Error as error:
        raise ValueError(f"{path}, line {lines.line_num}: {error}. Correct the quotes there, or above.") from error
