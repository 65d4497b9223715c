"""What adapters cost: interleaved timings of ways to do the same work, and the memory that they keep."""

from .adapters import ADAPTERS, adapt, sharing_copy
from .chat import ChatLayout, ChatTokens
from .comparison import adapter_seconds, compare
from .kept import kept_bytes
from .model import small_qwen2_5_vl
from .rounds import Run, measure
from .work import forward_backward, training_step

__all__ = [
    "ADAPTERS",
    "ChatLayout",
    "ChatTokens",
    "Run",
    "adapt",
    "adapter_seconds",
    "compare",
    "forward_backward",
    "kept_bytes",
    "measure",
    "sharing_copy",
    "small_qwen2_5_vl",
    "training_step",
]
