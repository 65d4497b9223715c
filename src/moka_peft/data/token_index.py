"""The token length of every sample, in a file that knows of which samples and which processor it is."""

import hashlib
import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from moka_peft.data.av_digits import AvDigits
from moka_peft.data.media.options import DEFAULTS, MediaOptions
from moka_peft.data.mixing import MixedSamples
from moka_peft.data.samples import Sample

_PIECE = 2**20
_AGAIN = "Write it again: moka validate RECIPE --write-index FILE."


def write_index(
    path: str | Path,
    lengths: Sequence[int],
    samples: Sequence[Sample],
    processor: Any,
    media: MediaOptions = DEFAULTS,
    max_length: int | None = None,
) -> None:
    """Writes the lengths of samples, 0 for a bad one; whole or not at all. max_length: what is longer counts as bad."""
    if len(lengths) != len(samples):
        raise ValueError(f"`lengths` is wrong: expected {len(samples)}, one per sample, got {len(lengths)}.")
    fingerprints = fingerprints_of(samples, processor, media)
    partial = Path(f"{path}.partial")
    with partial.open("wb") as file:
        np.savez(
            file,
            lengths=np.asarray(lengths, dtype=np.int32),
            fingerprints=np.array(json.dumps(fingerprints)),
            max_length=np.array(max_length or 0),
        )
    os.replace(partial, path)


def read_index(
    path: str | Path,
    samples: Sequence[Sample],
    processor: Any,
    media: MediaOptions = DEFAULTS,
    max_length: int | None = None,
) -> np.ndarray:
    """The lengths, int32 [samples]. Raises ValueError where they are those of other samples or another processor, or
    where samples count as bad that are short enough for the `max_length` of now."""
    try:
        with np.load(path, allow_pickle=False) as stored:
            lengths, fingerprints = stored["lengths"], json.loads(str(stored["fingerprints"]))
            limit = int(stored["max_length"])
    except (OSError, ValueError, KeyError) as error:
        raise ValueError(f"index `{path}` cannot be read: {error}. {_AGAIN}") from error
    now = fingerprints_of(samples, processor, media)
    if changed := [name for name, value in now.items() if fingerprints.get(name) != value]:
        raise ValueError(
            f"index `{path}` does not fit: expected the {' and '.join(changed)} it was written for, got others. "
            + _AGAIN
        )
    if limit and (max_length or limit + 1) > limit and not lengths.all():
        raise ValueError(
            f"index `{path}` does not fit: expected `training.max_length` to be at most the {limit} it was written "
            f"with, got {max_length}. {_AGAIN}"
        )
    return lengths


def fingerprints_of(samples: Sequence[Sample], processor: Any, media: MediaOptions) -> dict[str, str]:
    """What lengths depend on, by the word that an error has for it."""
    template, tokens = str(getattr(processor, "chat_template", None)), _tokens_of(processor.tokenizer)
    settings = json.dumps(processor.to_dict(), sort_keys=True, default=str)
    return {
        "samples": _digest(str(len(samples)), *map(_origin, _origins(samples))),
        "processor": _digest(type(processor).__name__, settings, template, tokens),
        "media options": _digest(repr(media)),
    }


def _tokens_of(tokenizer: Any) -> str:
    """All that decides which tokens a text becomes: vocabularies of one size may differ. Without the padding and
    truncation of the last call, which a fast tokenizer keeps."""
    backend = getattr(tokenizer, "backend_tokenizer", None)
    if backend is None:
        return repr((sorted(tokenizer.get_vocab().items()), tokenizer))
    return json.dumps({**json.loads(backend.to_str()), "padding": None, "truncation": None})


def _origins(samples: Sequence[Sample]) -> Sequence[Path | str]:
    """What says which data it is: files, the settings of generated samples, or the ids of any others."""
    if isinstance(samples, MixedSamples):
        return [origin for part in samples.parts for origin in (*_origins(part), str(len(part)))]
    if hasattr(samples, "origins"):
        return samples.origins  # pyright: ignore[reportAttributeAccessIssue]
    return [repr(vars(samples))] if isinstance(samples, AvDigits) else [sample.id for sample in samples]


def _origin(origin: Path | str) -> str:
    """One file by name, size, and its first and last MiB; anything else by its own words."""
    if isinstance(origin, str) or not origin.is_file():
        return str(origin)
    size = origin.stat().st_size
    with origin.open("rb") as file:
        first = file.read(_PIECE)
        file.seek(max(0, size - _PIECE))
        return _digest(origin.name, str(size), first.hex(), file.read(_PIECE).hex())


def _digest(*texts: str) -> str:
    return hashlib.sha256("\0".join(texts).encode()).hexdigest()
