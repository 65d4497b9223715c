"""Opens data sources."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Literal

from moka_peft.data.av_digits import AvDigits
from moka_peft.data.containers.contents import Container, Unreadable
from moka_peft.data.containers.hub import open_hub, open_saved
from moka_peft.data.containers.json_lines import JsonLines
from moka_peft.data.containers.json_list import JsonList, StreamedJsonList
from moka_peft.data.containers.parquet import Parquet
from moka_peft.data.containers.paths import find_files
from moka_peft.data.containers.tar import Tar
from moka_peft.data.datasets import DATASETS, open_dataset
from moka_peft.data.file_samples import FileSamples, HeldSamples, Reading
from moka_peft.data.formats import TURNS, Format
from moka_peft.data.media.options import DEFAULTS, MediaOptions
from moka_peft.data.samples import Sample
from moka_peft.data.spoken_digits import SpokenDigits


def load_samples(
    source: Mapping[str, Any] | str | Path,
    *,
    media: MediaOptions = DEFAULTS,
    on_bad_sample: Literal["raise", "skip"] = "raise",
) -> Sequence[Sample]:
    """Opens a data source: files of conversations, a dataset of the hub, a published dataset in its folder, or a
    generated set.

    source: a path, or one of these, of which only the first key is required:
    `{"path", "format", "folder", "streaming", "split", "question"}`: JSON, JSON lines, parquet or tar files, or a
    folder of `datasets`; a path may be a pattern, a folder of files, or a list. `{"hub", "split", "config", "format",
    "folder", "streaming"}`. `{"name", "folder", "split", "streaming", ...}` with a name of `datasets.DATASETS` and its
    options. `{"name": "av_digits", "split", "size", "seed", "groups", ...}` and `{"name": "spoken_digits", ...}`.
    `streaming: False` reads all rows now (the default for JSON by `path`), `True` reads each when it is asked for.
    With `on_bad_sample="skip"`, a row that cannot be read is given as a BadSample. Raises ValueError for unknown
    keys and, otherwise, for such rows.
    """
    options: dict[str, Any] = dict(source) if isinstance(source, Mapping) else {"path": source}
    if "path" in options or "hub" in options:
        return _open_files(_FileSource(**_known(options, _FileSource)), media, skip=on_bad_sample == "skip")
    if (name := options.pop("name", None)) in DATASETS:
        return _open_dataset(name, options, Reading(media, skip=on_bad_sample == "skip"))
    if name not in GENERATED:
        known = ", ".join((*GENERATED, *DATASETS))
        raise ValueError(f"`name` is no known dataset: expected one of {known}, got {name}. Or give a `path`.")
    make, keys = GENERATED[name]
    _refuse_unknown(options, keys)
    return make(**options)


GENERATED: dict[Any, tuple[type[AvDigits] | type[SpokenDigits], tuple[str, ...]]] = {
    "av_digits": (
        AvDigits,
        ("split", "size", "seed", "groups", "kinds", "images", "sounds", "media", "shortcuts", "misleading"),
    ),
    "spoken_digits": (SpokenDigits, ("split", "size", "seed", "scenario", "task", "folder", "speakers")),
}
"""The class of each generated set, and the keys it takes."""


def _open_dataset(name: str, options: dict[str, Any], reading: Reading) -> Sequence[Sample]:
    """A published dataset's samples."""
    streaming = options.pop("streaming", True)
    if "folder" not in options:
        raise ValueError(f"`folder` of {name} is missing: expected the dataset's folder. Set it.")
    samples = FileSamples(open_dataset(name, **options), reading)
    if not len(samples):
        raise ValueError(
            f"{name} in `{options['folder']}` is empty: expected at least 1 row, got 0. Download it again."
        )
    return samples if streaming else HeldSamples(samples)


@dataclass(frozen=True)
class _FileSource:
    """The keys of a source of files."""

    path: str | Path | Sequence[str | Path] | None = None
    hub: str | None = None
    config: str | None = None
    split: str | None = None
    format: Format | None = None
    folder: str | Path | None = None
    streaming: bool | None = None
    question: str | None = None

    def __post_init__(self) -> None:
        if self.format is not None and self.format not in TURNS:
            raise ValueError(f"`format` is unknown: expected one of {', '.join(TURNS)}, got {self.format}. Correct it.")
        if self.hub and self.streaming:
            raise ValueError(
                "`streaming` of a hub dataset is not supported: expected no `streaming`, got true. Leave it out: the "
                "dataset is downloaded once and then mapped from the disk, not held in memory."
            )


def _open_files(source: _FileSource, media: MediaOptions, skip: bool) -> Sequence[Sample]:
    reading = Reading(media, source.format, skip)
    if source.hub:
        folder = Path(source.folder) if source.folder else None
        return _filled([open_hub(source.hub, source.split, source.config, folder, source.format)], reading, source)
    files = find_files(source.path or "")
    hold = source.streaming is False or (
        source.streaming is None and all(file.suffix not in (".parquet", ".tar") and file.is_file() for file in files)
    )
    samples = _filled([_open_or_mark(file, source, hold, skip) for file in files], reading, source)
    return HeldSamples(samples) if hold else samples


def _open_or_mark(file: Path, source: _FileSource, hold: bool, skip: bool) -> Container:
    """One file's container; where it cannot be opened and may be skipped, one with a single bad row."""
    try:
        return _open_file(file, source, hold)
    except (OSError, ValueError) as error:
        if not skip:
            raise
        return Unreadable(file, error)


def _open_file(file: Path, source: _FileSource, hold: bool) -> Container:
    """One file's container, by its suffix; a file of no known suffix is read as JSON."""
    folder = Path(source.folder) if source.folder else None
    if file.is_dir():
        return open_saved(file, source.split, folder, source.format)
    open_as = {
        ".jsonl": JsonLines,
        ".ndjson": JsonLines,
        ".parquet": partial(Parquet, format=source.format),
    }.get(file.suffix, JsonList if hold else StreamedJsonList)
    return Tar(file, source.question) if file.suffix == ".tar" else open_as(file, folder)


def _filled(containers: Sequence[Container], reading: Reading, source: _FileSource) -> FileSamples:
    """Samples of which there is at least one. Raises ValueError where there is none."""
    samples = FileSamples(containers, reading)
    if not len(samples):
        raise ValueError(
            f"data file `{source.path or source.hub}` is empty: expected at least 1 row, got 0. Give another file."
        )
    return samples


def _known(options: dict[str, Any], keys: type) -> dict[str, Any]:
    _refuse_unknown(options, tuple(keys.__dataclass_fields__))
    return options


def _refuse_unknown(options: Mapping[str, Any], known: tuple[str, ...]) -> None:
    if unknown := sorted(set(options) - set(known)):
        raise ValueError(f"data source has unknown keys {unknown}: expected {', '.join(known)}. Correct them.")
