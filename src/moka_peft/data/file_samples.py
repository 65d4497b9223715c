"""Samples of data files: one file or many, read when they are asked for, or held in memory."""

from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate

from moka_peft.data.containers.contents import Container
from moka_peft.data.formats import Format, read_row
from moka_peft.data.indexed import IndexedSamples
from moka_peft.data.media.options import MediaOptions
from moka_peft.data.samples import Sample
from moka_peft.data.skipping import BadSample

Read = Sample | BadSample


@dataclass(frozen=True)
class Reading:
    """How rows become samples; with `skip`, a bad row becomes a BadSample instead of an exception."""

    options: MediaOptions
    format: Format | None = None
    skip: bool = False

    def read(self, container: Container, index: int) -> Read:
        try:
            return read_row(container.read(index), self.options, self.format)
        except (OSError, ValueError) as error:
            if not self.skip:
                raise
            return BadSample(container.where(index), str(error))


class FileSamples(IndexedSamples):
    """The rows of several containers as samples, each read when it is asked for; can be sent to workers.

    `shard_sizes`: how many samples lie together, in order; `block`: how many neighbours are best read one soon after
    the other. `origins`: the files, or what else says which data it is, with
    the questions that are asked of them and how their rows are rewritten. In `skip` mode some samples are BadSamples.
    """

    def __init__(self, containers: Sequence[Container], reading: Reading):
        self.containers, self.reading = list(containers), reading
        self.shard_sizes = [size for container in containers for size in container.sizes if size]
        self.block = max((container.block for container in containers), default=1)
        self.origins = [getattr(container, "fingerprint", None) or container.path for container in containers]
        told = [getattr(container, name, None) for container in containers for name in ("question", "settings")]
        self.origins += [text for text in told if text]
        self._ends = list(accumulate(len(container) for container in containers))

    def __len__(self) -> int:
        return self._ends[-1] if self._ends else 0

    def sample(self, index: int) -> Sample:
        place = bisect_right(self._ends, index)
        container = self.containers[place]
        return self.reading.read(container, index - self._ends[place] + len(container))  # pyright: ignore


class HeldSamples(list[Sample]):
    """Samples in memory, with what is known of their files: an epoch goes through them in the same order."""

    def __init__(self, samples: FileSamples):
        super().__init__(samples)
        self.shard_sizes, self.block, self.origins = samples.shard_sizes, samples.block, samples.origins
