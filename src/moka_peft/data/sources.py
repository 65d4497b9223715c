"""Opens data sources."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from moka_peft.data.av_digits import AvDigits
from moka_peft.data.message_files import read_message_file
from moka_peft.data.samples import Sample


def load_samples(source: Mapping[str, Any] | str | Path) -> Sequence[Sample]:
    """Opens a data source: a JSON or JSON-lines file of messages, or the built-in `av_digits`.

    source: a path; `{"path": file}`; or `{"name": "av_digits", "split", "size", "seed", "groups"}`, where only
    the name is required. Raises ValueError for unknown keys and for rows that cannot be read.
    """
    if not isinstance(source, Mapping):
        return read_message_file(source)
    options = dict(source)
    if path := options.pop("path", None):
        _refuse_unknown(options, ())
        return read_message_file(path)
    if (name := options.pop("name", None)) != "av_digits":
        raise ValueError(f"`name` is no built-in dataset: expected av_digits, got {name}. Or give a `path`.")
    _refuse_unknown(options, ("split", "size", "seed", "groups"))
    return AvDigits(**options)


def _refuse_unknown(options: Mapping[str, Any], known: tuple[str, ...]) -> None:
    if unknown := sorted(set(options) - set(known)):
        allowed = ", ".join(known) or "no other key"
        raise ValueError(f"data source has unknown keys {unknown}: expected {allowed}. Remove or correct them.")
