"""Which files a `path` in a data source names: one, a folder of shards, a pattern, or a list of these."""

import glob
import itertools
import re
from collections.abc import Sequence
from pathlib import Path

SUFFIXES = (".json", ".jsonl", ".ndjson", ".parquet", ".tar")
_BRACES = re.compile(r"\{([^{}]*)\}")


def find_files(path: str | Path | Sequence[str | Path]) -> list[Path]:
    """The files, in order; a folder that `datasets` saved stays one. Raises FileNotFoundError where one is missing.

    Patterns: `shards-{000..012}.tar`, `{a,b}.jsonl`, `*.parquet`.
    """
    if not isinstance(path, str | Path):
        return [file for one in path for file in find_files(one)]
    found = [file for written in expand_braces(str(path)) for file in _find(written)]
    if not found:
        raise FileNotFoundError(f"data file `{path}` not found. Correct the path, or put the file there.")
    return found


def is_saved_dataset(path: Path) -> bool:
    """Whether `datasets` wrote a folder with `save_to_disk`."""
    return any((path / name).is_file() for name in ("state.json", "dataset_dict.json"))


def expand_braces(pattern: str) -> list[str]:
    """The names that a pattern with braces stands for: `{00..11}` counts, `{a,b}` lists."""
    pieces = _BRACES.split(pattern)
    choices = [_choices(piece) if i % 2 else [piece] for i, piece in enumerate(pieces)]
    return ["".join(parts) for parts in itertools.product(*choices)]


def _choices(inside: str) -> list[str]:
    if match := re.fullmatch(r"(\d+)\.\.(\d+)", inside):
        first, last = match[1], match[2]
        return [str(number).zfill(len(first)) for number in range(int(first), int(last) + 1)]
    return inside.split(",") if "," in inside else [f"{{{inside}}}"]


def _find(written: str) -> list[Path]:
    """The files of one name without braces."""
    if not Path(written).exists() and glob.has_magic(written):
        return [file for name in sorted(glob.glob(written, recursive=True)) for file in _find(name)]
    path = Path(written)
    if path.is_dir() and not is_saved_dataset(path):
        return _shards(path)
    if not path.exists():
        raise FileNotFoundError(f"data file `{path}` not found. Correct the path, or put the file there.")
    return [path]


def _shards(folder: Path) -> list[Path]:
    """The data files of a folder. Raises ValueError where it holds files of several kinds, or none."""
    files = sorted(file for file in folder.iterdir() if file.suffix in SUFFIXES and file.is_file())
    kinds = sorted({file.suffix for file in files})
    if len(kinds) != 1:
        raise ValueError(
            f"data folder `{folder}` is unclear: expected files of one of {', '.join(SUFFIXES)}, "
            f"got {', '.join(kinds) or 'none'}. Name the files, for example {folder}/*.jsonl."
        )
    return files
