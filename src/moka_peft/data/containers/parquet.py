"""Parquet files, read by row group."""

from bisect import bisect_right
from itertools import accumulate
from pathlib import Path
from typing import Any

from moka_peft.data.containers.contents import NumberedRows, without_nulls
from moka_peft.data.containers.requirements import require
from moka_peft.data.formats import TURNS, Format

HELD_GROUPS = 4  # as many as an epoch shuffles together


class Parquet(NumberedRows):
    """Rows of a parquet file; holds the row groups that were read last. Media are paths, bytes or `{bytes, path}`.

    Raises ValueError for a file that is no parquet, or has no column of conversations.
    """

    def __init__(self, path: Path, folder: Path | None = None, format: Format | None = None):
        super().__init__(path, folder)
        parquet, arrow = require("pyarrow.parquet"), require("pyarrow")
        try:
            with parquet.ParquetFile(path) as file:
                groups = range(file.metadata.num_row_groups)
                self.sizes = [file.metadata.row_group(i).num_rows for i in groups]
                columns = file.schema_arrow.names
        except (arrow.ArrowInvalid, OSError) as error:
            raise ValueError(f"{path}: not a parquet file: {error}. Copy or write it again.") from error
        check_columns(str(path), columns, format)
        self._ends = list(accumulate(self.sizes))
        self.block = max(self.sizes, default=1)
        self._held: dict[int, Any] = {}

    def data(self, index: int) -> Any:
        group = bisect_right(self._ends, index)
        if group not in self._held:
            for old in list(self._held)[: 1 - HELD_GROUPS]:
                del self._held[old]
            with require("pyarrow.parquet").ParquetFile(self.path) as file:
                self._held[group] = file.read_row_group(group)
        start = self._ends[group] - self.sizes[group]
        return without_nulls(self._held[group].slice(index - start, 1).to_pylist()[0])

    def __getstate__(self) -> dict[str, Any]:
        return vars(self) | {"_held": {}}


def check_columns(name: str, columns: list[str], format: Format | None) -> None:
    """Raises ValueError where a table has no column that holds conversations."""
    wanted = [TURNS[format]] if format else ["messages", "conversations"]
    if not set(wanted) & set(columns):
        raise ValueError(
            f"{name}, row 1, `{wanted[0]}`: expected a column {' or '.join(wanted)}, got {', '.join(columns)}. "
            "Rename the column that holds the conversations."
        )
