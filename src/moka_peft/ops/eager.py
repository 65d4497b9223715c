"""The parts of an adapted Linear in plain torch: for the CPU, and for CUDA where Triton cannot be used."""

from .attention import attend, attend_backward
from .expansion import expand_, expand_backward
from .projection import project, project_backward

__all__ = ["attend", "attend_backward", "expand_", "expand_backward", "project", "project_backward"]
