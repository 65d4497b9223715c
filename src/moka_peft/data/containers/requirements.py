"""Libraries that only some containers need."""

import importlib
from typing import Any


def require(name: str) -> Any:
    """A library's module. Raises ImportError, with the command that installs it, where it is missing."""
    try:
        return importlib.import_module(name)
    except ImportError as error:
        library = name.partition(".")[0]
        raise ImportError(f"`{library}` is not installed. Install it: pip install 'moka-peft[data]'.") from error
