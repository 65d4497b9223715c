"""Samples that are made and pass the processor once, however many runs and processes read them.

    samples, collator -> prepare(..., cache) -> samples without media, and a collator that joins their stored rows

Batches are the same bit for bit. Only generated sets can be prepared: what else a sample is read from (the media files
of a JSON file, say) may change without anyone noticing.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field, replace
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, Literal

import torch

from moka_peft.data.av_digits import AvDigits
from moka_peft.data.collator import IGNORED, Collator
from moka_peft.data.indexed import IndexedSamples
from moka_peft.data.mixing import MixedSamples
from moka_peft.data.prepared_rows import Row, cut_row, differences, join_rows
from moka_peft.data.prepared_store import StoredRows, open_rows
from moka_peft.data.samples import Sample, text_of
from moka_peft.data.spoken_digits import SpokenDigits
from moka_peft.data.token_index import fingerprints_of

CHECKED_TOGETHER = 32  # rows that are compared with the processor's own batch of them, when they are written
LIBRARIES = ("torch", "transformers", "tokenizers", "numpy", "pillow", "scikit-learn")
PROMPT = "prompt:"  # stands before the names of a prompt's tensors

Kind = Literal["rows", "prompts"]


@dataclass(frozen=True)
class PreparedSample(Sample):
    """A sample whose messages hold its words only; its tensors are row `index` of `stored`."""

    stored: StoredRows | None = field(default=None, compare=False, repr=False)
    index: int = 0


class PreparedSamples(IndexedSamples):
    """The samples of stored rows."""

    def __init__(self, stored: StoredRows):
        self.stored = stored

    def __len__(self) -> int:
        return len(self.stored)

    def sample(self, index: int) -> Sample:
        return PreparedSample(**self.stored.texts[index], stored=self.stored, index=index)


class PreparedCollator:
    """Makes the batches of prepared samples that `collator` would make of the samples themselves."""

    def __init__(self, collator: Collator):
        self.collator, self.kinds, self.processor = collator, collator.kinds, collator.processor

    def __call__(self, samples: Sequence[Sample]) -> dict[str, Any]:
        batch = self._join(samples, "rows")
        for labels, sample in zip(batch["labels"], samples, strict=True):
            if not any(message.get("loss", True) for message in sample.messages if message["role"] == "assistant"):
                labels[:] = IGNORED
        return batch

    def collate_prompts(self, samples: Sequence[Sample]) -> dict[str, torch.Tensor]:
        return self._join(samples, "prompts")

    def _join(self, samples: Sequence[Sample], kind: Kind) -> dict[str, torch.Tensor]:
        return _join([_part_of(_row_of(sample), kind) for sample in samples], kind, self.processor)


def prepare(samples: Sequence[Sample], collator: Collator, cache: Path, *, prompts: bool) -> Sequence[Sample]:
    """The samples, prepared in the folder `cache` for a PreparedCollator of `collator`.

    prompts: whether their prompts are wanted, too. Raises ValueError, with the reason, for samples, collators and
    processors whose batches cannot be stored.
    """
    _check(samples, collator)
    if isinstance(samples, MixedSamples):
        return MixedSamples([prepare(part, collator, cache, prompts=prompts) for part in samples.parts])
    kinds: tuple[Kind, ...] = ("rows", "prompts") if prompts else ("rows",)
    return PreparedSamples(open_rows(cache, _key(samples, collator, kinds), lambda: _make(samples, collator, kinds)))


def _check(samples: Sequence[Sample], collator: Collator) -> None:
    if not isinstance(samples, AvDigits | SpokenDigits | MixedSamples):
        raise ValueError(
            "`data.cache` is for generated samples alone: expected av_digits or spoken_digits, got "
            f"{type(samples).__name__}, whose media may change without notice. Remove `data.cache`."
        )
    if collator.packing or collator.kinds:
        what = "packed rows" if collator.packing else "several processes that need blank media"
        raise ValueError(f"`data.cache` cannot hold {what}. Remove `data.cache`.")


def _key(samples: Sequence[Sample], collator: Collator, kinds: Sequence[Kind]) -> str:
    """A digest of all that decides the rows: samples, processor, media options, code and libraries."""
    known = fingerprints_of(samples, collator.processor, collator.media)
    libraries = {name: _version(name) for name in LIBRARIES}
    settings = [sorted(known.items()), kinds, collator.max_length, libraries, _code()]
    return hashlib.sha256(repr(settings).encode()).hexdigest()[:32]


def _version(name: str) -> str | None:
    """A library's version; None where it is not installed, as scikit-learn may be for speech alone."""
    try:
        return version(name)
    except PackageNotFoundError:
        return None


@cache
def _code() -> str:
    """A digest of the files that make samples and process them."""
    package = Path(__file__).parents[1]
    files = sorted(path for folder in ("data", "composite") for path in (package / folder).rglob("*.py"))
    return hashlib.sha256(b"\0".join(path.read_bytes() for path in files)).hexdigest()


def _make(samples: Sequence[Sample], collator: Collator, kinds: Sequence[Kind]) -> Iterator[tuple[Row, dict[str, Any]]]:
    """Every sample's rows under one name each, and its words; checked against the collator's batches."""
    for start in range(0, len(samples), CHECKED_TOGETHER):
        some = [samples[i] for i in range(start, min(start + CHECKED_TOGETHER, len(samples)))]
        made = {kind: _cut(some, collator, kind) for kind in kinds}
        for place, sample in enumerate(some):
            row = made["rows"][place]
            row |= {PROMPT + name: value for name, value in made["prompts"][place].items()} if "prompts" in made else {}
            yield row, _words(sample)


def _cut(samples: Sequence[Sample], collator: Collator, kind: Kind) -> list[Row]:
    collate: Any = collator if kind == "rows" else collator.collate_prompts
    batches, name = [collate([sample]) for sample in samples], type(collator.processor).__name__
    try:
        rows = [cut_row(batch) for batch in batches]
        wrong = differences(collate(samples), _join(rows, kind, collator.processor))
    except (TypeError, ValueError) as error:
        raise ValueError(f"`data.cache` cannot hold what {name} returns: {error}. Remove `data.cache`.") from error
    if wrong:
        raise ValueError(
            f"`data.cache` cannot hold what {name} returns: its {', '.join(wrong)} of several samples are not those "
            "of each put together. Remove `data.cache`."
        )
    return rows


def _join(rows: Sequence[Row], kind: Kind, processor: Any) -> dict[str, torch.Tensor]:
    return join_rows(rows, processor.tokenizer.pad_token_id or 0, "right" if kind == "rows" else "left")


def _row_of(sample: Sample) -> Row:
    if not isinstance(sample, PreparedSample) or sample.stored is None:
        raise ValueError(f"sample `{sample.id}` is not prepared: expected one of `prepare`. Use the plain collator.")
    return sample.stored.row(sample.index)


def _part_of(row: Row, kind: Kind) -> Row:
    if kind == "rows":
        return {name: value for name, value in row.items() if not name.startswith(PROMPT)}
    return {name.removeprefix(PROMPT): value for name, value in row.items() if name.startswith(PROMPT)}


def _words(sample: Sample) -> dict[str, Any]:
    """A sample's fields without its media."""
    messages = [{**message, "content": text_of(message)} for message in sample.messages]
    return asdict(replace(sample, messages=messages))
