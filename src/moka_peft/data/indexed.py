"""What sequences of samples that are read, or made, one by one have in common."""

from abc import abstractmethod
from collections.abc import Sequence
from typing import overload

from moka_peft.data.samples import Sample


class IndexedSamples(Sequence[Sample]):
    """Samples by index, also from the end, and by slice; a subclass gives `__len__` and `sample`."""

    @abstractmethod
    def sample(self, index: int) -> Sample:
        """The sample at an index from 0 on."""

    @overload
    def __getitem__(self, index: int) -> Sample: ...
    @overload
    def __getitem__(self, index: slice) -> list[Sample]: ...
    def __getitem__(self, index: int | slice) -> Sample | list[Sample]:
        if isinstance(index, slice):
            return [self.sample(i) for i in range(*index.indices(len(self)))]
        return self.sample(self.counted(index))

    def counted(self, index: int) -> int:
        """The index counted from the front. Raises IndexError where there is no such sample."""
        if not -len(self) <= index < len(self):
            raise IndexError(f"`index` is out of range: expected below {len(self)}, got {index}.")
        return index % len(self)
