"""Where the stand-ins of a recipe's tiny run lie: `moka eval RECIPE --tiny`."""

from pathlib import Path
from typing import Any

from moka_peft.evaluation.generated.benchmarks import write_benchmark
from moka_peft.training.tiny.places import claim_tiny_folder, made
from moka_peft.training.tiny.recipe import SAMPLES


def tiny_benchmark(name: str, output_dir: str | Path, **options: Any) -> Path:
    """The folder of a benchmark's stand-in, in the folder `tiny` beside a recipe's own `output_dir`; writes it whole or
    not at all, unless it is there.

    options: those with which the benchmark is opened. Raises ValueError for what `write_benchmark` does not take, and
    where the folder `tiny` is not one of ours.
    """
    label = "-".join([f"benchmark-{name}", *(f"{key}={value}" for key, value in sorted(options.items()))])
    folder = claim_tiny_folder(output_dir) / "data" / label
    return made(folder, lambda place: write_benchmark(name, place, samples=SAMPLES, **options))
