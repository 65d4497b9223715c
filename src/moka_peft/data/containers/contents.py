"""What every container of rows offers: how many, where they stand, and one of them at a time."""

import json
from pathlib import Path
from typing import Any, Protocol

from moka_peft.data.formats.row import MediaFolder, Row


class Container(Protocol):
    """The rows of one file, read one at a time.

    It holds where rows lie, not the rows. No file stays open between two reads, so that a container can be sent
    to another process, or forked with one. `sizes`: how many rows lie together, in order. `block`: how many
    neighbours are best read one soon after the other.
    """

    path: Path
    sizes: list[int]
    block: int

    def __len__(self) -> int: ...

    def where(self, index: int) -> str:
        """What an error calls a row: "FILE, row N"."""
        ...

    def read(self, index: int) -> Row:
        """One row. Raises ValueError where it cannot be decoded."""
        ...


class NumberedRows:
    """A container whose rows are counted from 1, with media in a folder."""

    block = 1

    def __init__(self, path: Path, folder: Path | None):
        self.path, self.place = path, MediaFolder(folder or path.parent)
        self.sizes: list[int] = []

    def __len__(self) -> int:
        return sum(self.sizes)

    def where(self, index: int) -> str:
        return f"{self.path}, row {index + 1}"

    def read(self, index: int) -> Row:
        return Row(self.data(index), self.where(index), f"{self.path.stem}-{index + 1}", self.place)

    def data(self, index: int) -> Any:
        """What a row holds."""
        raise NotImplementedError


class Unreadable(NumberedRows):
    """Stands for a whole file that cannot be opened: one row that says why."""

    def __init__(self, path: Path, error: Exception):
        super().__init__(path, None)
        self.sizes, self._error = [1], error

    def where(self, index: int) -> str:
        return f"{self.path}, all rows"

    def data(self, index: int) -> Any:
        raise self._error


def parse_json(content: bytes, where: str) -> Any:
    """What JSON text says; raises ValueError, beginning with `where`, for what is no UTF-8 or no JSON."""
    try:
        return json.loads(content.decode("utf-8").removeprefix("\ufeff"))
    except UnicodeDecodeError as error:
        raise ValueError(f"{where}: not UTF-8: {error}. Save the file as UTF-8.") from error
    except json.JSONDecodeError as error:
        raise ValueError(f"{where}: not valid JSON: {error}. Correct the file.") from error


def without_nulls(value: Any) -> Any:
    """A table's row without the keys that only other rows fill."""
    if isinstance(value, dict):
        return {key: without_nulls(item) for key, item in value.items() if item is not None}
    return [without_nulls(item) for item in value] if isinstance(value, list) else value
