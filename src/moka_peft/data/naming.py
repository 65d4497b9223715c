"""Errors about a batch name the sample that they are about, whoever raised them."""

from collections.abc import Callable, Sequence
from typing import TypeVar

from moka_peft.data.samples import Sample

T = TypeVar("T")


def naming_samples(work: Callable[[Sequence[Sample]], T], samples: Sequence[Sample]) -> T:
    """What `work` makes of samples. Where a processor or a template refuses them without saying which, the first
    that is refused alone is named before its error; a batch that no single sample spoils keeps its own."""
    try:
        return work(samples)
    except (OSError, ValueError) as error:
        if any(_names(error, sample) for sample in samples):
            raise
        for sample in samples:
            if refused := _refusal(work, sample):
                raise (OSError if isinstance(error, OSError) else ValueError)(f"{sample.place}: {refused}") from error
        raise


def _names(error: Exception, sample: Sample) -> bool:
    return any(name and name in str(error) for name in (sample.where, f"`{sample.id}`"))


def _refusal(work: Callable[[Sequence[Sample]], T], sample: Sample) -> str:
    try:
        work([sample])
    except (OSError, ValueError) as error:
        return str(error)
    return ""
