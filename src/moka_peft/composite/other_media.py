"""Media beyond images, video and audio, as the processor reads them: arrays of one shape."""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor


def read_pieces(
    kind: str,
    medium: Any,
    reader: Callable[[Any], Any] | None,
    *,
    shape: Sequence[int],
    has_reader: bool = False,
    tokens: int = 0,
) -> list[Tensor]:
    """The pieces of one medium, each [*shape] and encoded by itself; `tokens` is unused.

    `reader` turns what the user gives (a path, a recording of any length) into an array [*shape] or
    [pieces, *shape]; without one the medium is such an array. `has_reader` says that there was one when the processor
    was saved. Raises ValueError for any other shape, and where the reader is missing.
    """
    if has_reader and reader is None:
        raise ValueError(
            f"`{kind}` has lost its reader: expected processor.readers['{kind}'] to be the function that this "
            f"processor was saved with, got none. Set it: functions are not saved."
        )
    read = medium if reader is None else reader(medium)
    array = read if isinstance(read, Tensor) else torch.from_numpy(np.asarray(read, dtype=np.float32))
    shape = list(shape)
    if list(array.shape) == shape:
        return [array.float()]
    if list(array.shape[1:]) != shape or len(array) == 0:
        raise ValueError(
            f"`{kind}` holds a medium of the wrong shape: expected {shape} or [pieces, {', '.join(map(str, shape))}], "
            f"got {list(array.shape)}. Cut or resample it, or let processor.readers['{kind}'] do so."
        )
    return list(array.float())
