"""Rows of any container in another form: a published dataset's annotations as conversations."""

from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from moka_peft.data.containers.contents import Container
from moka_peft.data.formats.row import MediaFolder, Row


class Rewritten:
    """The rows of a container, each rewritten when it is read, with media below `root`.

    rewrite: can be sent to another process; its `repr` says by which settings it rewrites.
    """

    def __init__(self, rows: Container, rewrite: Callable[[Row], Mapping[str, Any]], root: Path):
        self.rows, self.rewrite, self.place = rows, rewrite, MediaFolder(root)
        self.path, self.sizes, self.block = rows.path, rows.sizes, rows.block
        self.fingerprint = getattr(rows, "fingerprint", None)
        self.settings = "; ".join([*filter(None, [getattr(rows, "settings", None)]), repr(rewrite)])

    def __len__(self) -> int:
        return len(self.rows)

    def where(self, index: int) -> str:
        return self.rows.where(index)

    def read(self, index: int) -> Row:
        row = replace(self.rows.read(index), place=self.place)
        if not isinstance(row.data, Mapping):
            raise row.fail("row", f"expected an object, got {row.data!r}. Correct the row, or download the file again.")
        return replace(row, data=self.rewrite(row))
