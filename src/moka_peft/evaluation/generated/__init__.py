"""Small made-up stand-ins of the benchmarks in their published layouts, with real media files."""

from moka_peft.evaluation.generated.benchmarks import write_benchmark
from moka_peft.evaluation.generated.tiny import tiny_benchmark

__all__ = ["tiny_benchmark", "write_benchmark"]
