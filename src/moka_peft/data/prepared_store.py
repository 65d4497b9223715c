"""Rows on the disk: one folder per set of samples, mapped into memory by all processes that read it.

    CACHE/<key>/      rows.json, and one file of raw numbers for every tensor; there as a whole or not at all
    CACHE/<key>.lock  held by the process that writes it; the others wait

The key is a digest of all that decides the rows, the code that makes them included: a folder is never out of date, it
is another one's.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from moka_peft.data.prepared_rows import Row

MAX_BYTES = 8 * 2**30
_ABOUT = "rows.json"


class StoredRows:
    """The rows of one folder. Raises ValueError where it is not as it was written."""

    def __init__(self, folder: Path):
        self.folder = folder
        about = json.loads((folder / _ABOUT).read_text(encoding="utf-8"))
        self.texts: list[dict[str, Any]] = about["texts"]
        self.tensors: dict[str, dict[str, Any]] = about["tensors"]
        for name, tensor in self.tensors.items():
            size = int(np.prod([tensor["ends"][-1], *tensor["shape"]])) * np.dtype(tensor["dtype"]).itemsize
            if (found := _file_of(folder, name).stat().st_size) != size:
                raise ValueError(
                    f"cache `{folder}` is damaged: expected {size} bytes of {name}, got {found}. Delete the folder."
                )

    def __len__(self) -> int:
        return len(self.texts)

    def __reduce__(self) -> Any:
        return StoredRows, (self.folder,)

    def row(self, index: int) -> Row:
        """One row, its arrays being views of the mapped files; a tensor that it lacks is left out."""
        row = {}
        for name, (values, ends) in self._mapped.items():
            first = ends[index - 1] if index else 0
            if ends[index] > first:
                row[name] = values[first : ends[index]]
        return row

    @cached_property
    def _mapped(self) -> dict[str, tuple[np.ndarray, list[int]]]:
        mapped = {}
        for name, tensor in self.tensors.items():
            shape = (tensor["ends"][-1], *tensor["shape"])
            values = np.memmap(_file_of(self.folder, name), dtype=tensor["dtype"], mode="r", shape=shape)
            mapped[name] = (values.view(np.ndarray), tensor["ends"])
        return mapped


def open_rows(cache: Path, key: str, make: Callable[[], Iterable[tuple[Row, dict[str, Any]]]]) -> StoredRows:
    """The rows of a key; where there are none, those that `make` gives, with the words kept beside each, are written.

    Of several processes one writes and the others wait for it; what a killed one left is written anew.
    """
    final = cache / key
    if not final.is_dir():
        cache.mkdir(parents=True, exist_ok=True)
        with _locked(cache / f"{key}.lock"):
            if not final.is_dir():
                partial = cache / f"{key}.partial"
                shutil.rmtree(partial, ignore_errors=True)
                partial.mkdir()
                try:
                    _write(partial, make())
                    os.replace(partial, final)
                finally:
                    shutil.rmtree(partial, ignore_errors=True)
    return StoredRows(final)


@contextmanager
def _locked(path: Path) -> Iterator[None]:
    """Waits for the file's lock and holds it; the system frees that of a process that dies."""
    import fcntl  # not there on Windows, where nothing else here is missing

    with path.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def _write(folder: Path, rows: Iterable[tuple[Row, dict[str, Any]]]) -> None:
    texts: list[dict[str, Any]] = []
    tensors: dict[str, dict[str, Any]] = {}
    files, written = {}, 0
    with ExitStack() as stack:
        for row, text in rows:
            for name, values in row.items():
                if name not in tensors:
                    files[name] = stack.enter_context(_file_of(folder, name).open("wb"))
                    tensors[name] = {"dtype": values.dtype.str, "shape": values.shape[1:], "ends": [0] * len(texts)}
                _check_alike(name, values, tensors[name])
                ends = tensors[name]["ends"]
                ends.append((ends[-1] if ends else 0) + len(values))
                written += files[name].write(np.ascontiguousarray(values).tobytes())
            texts.append(text)
            for tensor in tensors.values():  # those that this row lacks
                tensor["ends"] += tensor["ends"][-1:] * (len(texts) - len(tensor["ends"]))
            if written > MAX_BYTES:
                raise ValueError(
                    f"`data.cache` would be too large: expected at most {MAX_BYTES / 2**30:.0f} GiB for a source, got "
                    f"more after {len(texts)} samples. Remove `data.cache`."
                )
    (folder / _ABOUT).write_text(json.dumps({"texts": texts, "tensors": tensors}), encoding="utf-8")


def _check_alike(name: str, values: np.ndarray, tensor: dict[str, Any]) -> None:
    if (values.dtype.str, values.shape[1:]) != (tensor["dtype"], tensor["shape"]):
        raise ValueError(
            f"`data.cache` needs samples of one shape: expected {name} of {tensor['shape']}, got {values.shape[1:]}. "
            "Remove `data.cache`."
        )


def _file_of(folder: Path, name: str) -> Path:
    return folder / f"{name}.raw"
