"""One row of a data file on its way to a sample: what it holds, where it stands, where its media lie."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from moka_peft.data.media.opening import check_url, decode_data_url, is_url
from moka_peft.data.media.options import MediaOptions


@dataclass(frozen=True)
class MediaFolder:
    """Media that are files; relative paths start at `root`."""

    root: Path

    def find(self, name: str) -> str | None:
        path = self.root / name
        return str(path) if path.is_file() else None

    def describe_missing(self, name: str) -> str:
        return (
            f"file `{self.root / name}` not found. Correct the path (relative ones start at `{self.root}`; "
            "`folder` in the data source changes that), or remove the row."
        )


@dataclass(frozen=True)
class Members:
    """Media that lie beside a row in a tar file, by the ending of their names."""

    key: str
    content: Mapping[str, bytes]

    def find(self, name: str) -> bytes | None:
        """The bytes of a member that is called by its ending ("jpg"), its file name, or its path in the tar."""
        key = self.key.rsplit("/", 1)[-1]
        for prefix in ("", ".", f"{key}.", f"{self.key}."):
            if name.startswith(prefix) and name.removeprefix(prefix) in self.content:
                return self.content[name.removeprefix(prefix)]
        return None

    def describe_missing(self, name: str) -> str:
        return (
            f"member `{name}` is missing: expected one of {', '.join(self.content)} beside it. "
            "Add it to the tar file, correct its name, or remove the row."
        )


@dataclass(frozen=True)
class Row:
    """What one row holds, and what its errors and its sample are called."""

    data: Any
    where: str
    name: str
    place: MediaFolder | Members

    def fail(self, field: str, problem: str) -> ValueError:
        return ValueError(f"{self.where}, `{field}`: {problem}")

    def medium(self, field: str, value: Any, options: MediaOptions) -> str | bytes:
        """What a medium's reference stands for: a path, an address or bytes. Raises where there is no such thing."""
        if isinstance(value, Mapping):  # Hugging Face's `{bytes, path}`
            value = value["bytes"] if value.get("bytes") is not None else value.get("path")
        if isinstance(value, bytes):
            return value
        if not isinstance(value, str) or not value:
            raise self.fail(field, f"expected a string, got {value!r}. Give a path, a URL or bytes.")
        try:
            if value.startswith("data:"):
                return decode_data_url(value)
            if is_url(value):
                check_url(value, options)
                return value
            found = self.place.find(value.removeprefix("file://"))
        except ValueError as error:
            raise self.fail(field, str(error)) from error
        if found is None:
            raise FileNotFoundError(f"{self.where}, `{field}`: {self.place.describe_missing(value)}")
        return found
