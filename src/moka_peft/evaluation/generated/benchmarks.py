"""What writes each benchmark's stand-in."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

from moka_peft.data.generated import write_generated
from moka_peft.evaluation import BENCHMARKS
from moka_peft.evaluation.generated.pictures import write_mmbench, write_mme, write_pope, write_seed_bench
from moka_peft.evaluation.generated.sounds import write_air_bench, write_mmau

WRITERS: dict[str, Callable[[Path, int, int], None]] = {
    "mme": write_mme,
    "mmbench": write_mmbench,
    "pope": write_pope,
    "seed_bench": write_seed_bench,
    "mmau": write_mmau,
    "air_bench": write_air_bench,
}
DATASETS = ("music_avqa", "ave")  # trained on, too: their test split is the benchmark


def write_benchmark(name: str, folder: str | Path, *, samples: int = 4, seed: int = 0, **options: Any) -> None:
    """Writes `samples` questions of benchmark NAME, with their media, such that `questions(folder, **options)` of the
    benchmark opens them.

    They are dealt to its groups (splits, tasks) in turn, whichever of these `options` asks for, and each group gets at
    least one; so MME, with a picture and two questions in each of ten, has 20 at least. The files depend on the
    arguments alone. Raises ValueError for a name, number or option that cannot be.
    """
    if name not in BENCHMARKS:
        raise ValueError(f"`name` is no benchmark: expected one of {', '.join(BENCHMARKS)}, got {name}. Correct it.")
    if samples < 1:
        raise ValueError(f"`samples` is too small: expected at least 1, got {samples}. Raise it.")
    BENCHMARKS[name].check_options(options)
    if name in DATASETS:
        write_generated(name, folder, samples=samples, split=options.get("split", "test"), seed=seed)
    else:
        WRITERS[name](Path(folder), samples, seed)
