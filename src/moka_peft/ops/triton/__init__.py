"""The maths of the adapted Linear as Triton kernels; same functions as `ops.eager`.

Triton is imported when a function is first asked for, so a machine without a GPU needs none.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .attention import attend, attend_backward
    from .expansion import expand_, expand_backward
    from .projection import project, project_backward

_HOME = {
    "attend": "attention",
    "attend_backward": "attention",
    "expand_": "expansion",
    "expand_backward": "expansion",
    "project": "projection",
    "project_backward": "projection",
}


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    function = getattr(import_module(f".{_HOME[name]}", __name__), name)
    globals()[name] = function  # the next look-up finds it without this function
    return function


__all__ = ["attend", "attend_backward", "expand_", "expand_backward", "project", "project_backward"]
