"""The rows of a benchmark's files, with what their errors are called and where their media lie."""

from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path

from moka_peft.data.containers.contents import Container
from moka_peft.data.datasets.layout import Layout
from moka_peft.data.formats.row import MediaFolder, Row


def layout(name: str, root: Path) -> Layout:
    """A benchmark's folder, in which files are looked for under their published names."""
    return Layout(name, root, "docs/evaluation.md")


def rows_of(container: Container, root: Path) -> Iterator[Row]:
    """Each row of a file; media lie below `root`. Raises ValueError for a row that is no object."""
    for index in range(len(container)):
        row = replace(container.read(index), place=MediaFolder(root))
        if not isinstance(row.data, Mapping):
            raise row.fail("row", f"expected an object, got {row.data!r}. Download the file again.")
        yield row
