"""Where a published dataset's files lie: found by their names, or an error that says where they were expected."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from moka_peft.data.formats.row import Row


@dataclass(frozen=True)
class Layout:
    """A dataset's folder, in which files are looked for under their published names."""

    name: str
    root: Path
    docs: str = "docs/datasets.md"

    def find(self, what: str, *names: str) -> Path:
        """The first of several names that is a file. Raises FileNotFoundError, naming all of them."""
        found = self.look_for(*names)
        if found is None:
            raise self.missing(what, *names)
        return found

    def look_for(self, *names: str) -> Path | None:
        """The first of several names that is a file, if one is."""
        return next((self.root / name for name in names if (self.root / name).is_file()), None)

    def missing(self, what: str, *names: str) -> FileNotFoundError:
        """What is said where none of several names is there."""
        places = " or ".join(f"`{self.root / name}`" for name in names)
        return FileNotFoundError(
            f"{what} of `{self.name}` not found: expected {places}. Put it there, or correct `folder`; "
            f"{self.docs}, section {self.name}, says where to get it."
        )


def first_medium(row: Row, field: str, names: Sequence[str]) -> str:
    """The path of the first of several names, below a row's folder, that is a file.

    Raises FileNotFoundError, naming file, row and all places, where none is.
    """
    for name in names:
        if isinstance(found := row.place.find(name), str):
            return found
    places = ", ".join(f"`{getattr(row.place, 'root', '')}/{name}`" for name in names)
    raise FileNotFoundError(
        f"{row.where}, `{field}`: no such file: expected one of {places}. Put it there, or remove the row."
    )


def text_field(row: Row, field: str) -> str:
    """A row's text under a key; numbers become text. Raises ValueError where there is none."""
    value = row.data.get(field)
    if isinstance(value, bool) or not isinstance(value, str | int) or not str(value).strip():
        raise row.fail(field, f"expected a text, got {value!r}. Correct the row, or download the file again.")
    return str(value).strip()


def one_turn(
    row: Row, question: str, answer: str, *, group: str | None = None, kind: str | None = None, **media: list[str]
) -> dict[str, Any]:
    """A row of one question, with a tag for each medium, and its answer; media: lists `images`, `videos`, `audios`."""
    messages = [{"role": "user", "content": question}, {"role": "assistant", "content": answer}]
    return {"id": row.name, "messages": messages, "group": group, "kind": kind, **media}
