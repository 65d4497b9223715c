"""Errors about a batch name the sample that they are about, whoever raised them."""

from collections.abc import Callable, Sequence
from typing import TypeVar

from moka_peft.data.samples import Sample

T = TypeVar("T")


def naming_samples(work: Callable[[Sequence[Sample]], T], samples: Sequence[Sample]) -> T:
    """What `work` makes of samples. Where a processor or a template refuses them without saying which, the first
    that is refused alone in the same words is named before the error."""
    try:
        return work(samples)
    except (OSError, ValueError) as error:
        if any((sample.where or f"`{sample.id}`") in str(error) for sample in samples):
            raise
        for sample in samples:
            if _refusal(work, sample) == str(error):
                kind = OSError if isinstance(error, OSError) else ValueError
                raise kind(f"{sample.place}: {error}") from error
        raise


def _refusal(work: Callable[[Sequence[Sample]], T], sample: Sample) -> str | None:
    try:
        work([sample])
    except Exception as error:  # a faulty processor may do anything; that of the batch is raised
        return str(error)
    return None
