"""LiveBytes: what tensors hold while a computation runs, on the meta device as on any other.

On the CPU it agrees with torch's own allocator to the byte, but for the workspaces inside operators.
"""

from __future__ import annotations

import weakref
from collections.abc import Iterable
from typing import Any

from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves


class LiveBytes(TorchDispatchMode):
    """Counts the storages that operators make inside the block, from their making until nothing holds them.

    `left_out`: tensors that are there anyway, as parameters. `now`: bytes held at this moment; `peak()`: the most.
    """

    def __init__(self, left_out: Iterable[Tensor] = ()):
        super().__init__()
        self.now = 0
        self._sizes: dict[int, int] = {}
        self._events: list[tuple[int, int]] = []  # serial number of a storage, its bytes (negative: given back)
        self._serial: dict[int, int] = {}
        self._left_out = {_address(tensor) for tensor in left_out}

    def __torch_dispatch__(self, func: Any, types: Any, args: tuple = (), kwargs: dict | None = None) -> Any:
        result = func(*args, **(kwargs or {}))
        for tensor in tree_leaves(result):
            if isinstance(tensor, Tensor):
                self._note(tensor)
        return result

    def peak(self, *, without: Iterable[Tensor] = ()) -> int:
        """The most bytes that were held at once; storages of `without` not counted, at no time."""
        skipped = {self._serial.get(_address(tensor)) for tensor in without}
        held = most = 0
        for serial, size in self._events:
            held += 0 if serial in skipped else size
            most = max(most, held)
        return most

    def since(self, event: int) -> int:
        """The most bytes that were held at once from an `event` on."""
        held = sum(size for _, size in self._events[:event])
        most = held
        for _, size in self._events[event:]:
            held += size
            most = max(most, held)
        return most

    @property
    def event(self) -> int:
        """Where the record stands, for `since`."""
        return len(self._events)

    def _note(self, tensor: Tensor) -> None:
        address = _address(tensor)
        if address in self._sizes or address in self._left_out:
            return
        storage = tensor.untyped_storage()
        size, serial = storage.nbytes(), len(self._events)
        self._sizes[address], self._serial[address] = size, serial
        self._events.append((serial, size))
        self.now += size
        weakref.finalize(storage, self._free, address, serial)

    def _free(self, address: int, serial: int) -> None:
        size = self._sizes.pop(address)
        self._events.append((serial, -size))
        self.now -= size


def _address(tensor: Tensor) -> int:
    return tensor.untyped_storage()._cdata
