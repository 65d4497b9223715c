"""Times `moka eval`'s runner over a benchmark beside `model.generate` alone on the same batches.

    python bench/bench_eval.py        # three minutes on two cores

The runner reads media files, makes batches, generates, writes each batch to disk, scores all records by both protocols
and writes them; `generate` gets the batches ready-made. POPE's and MMAU's questions are made up, with pictures and
recordings; the model is the embedded default at random, with 8 layers, which answers with as many tokens as it may. In
turn: `generate` twice, the runner in one process, and with a worker that loads media ahead. Also processor seconds, of
workers too, which other programs on the machine change less. Writes bench/results/eval.json.
"""

from __future__ import annotations

import argparse
import resource
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from recording import header, options_of, say, table, timing, write
from rich.console import Console

from moka_peft.analysis.speed import measure
from moka_peft.analysis.speed.comparison import rounded, spread
from moka_peft.composite import CompositeForConditionalGeneration, tiny_avt_config, tiny_avt_processor
from moka_peft.data import Collator
from moka_peft.evaluation import BENCHMARKS
from moka_peft.evaluation.batches import Batches
from moka_peft.evaluation.generated import write_benchmark
from moka_peft.evaluation.run import evaluate
from moka_peft.evaluation.task import Task
from moka_peft.training.determinism import fixed_threads

NAMES = ("pope", "mmau")
BAR = 1.05  # of the runner's time over `generate`'s


def build(options: argparse.Namespace) -> tuple[Any, Any, Collator]:
    """The embedded default with more layers, at random, on which no answer ends early."""
    torch.manual_seed(options.seed)
    config: Any = tiny_avt_config()
    config.text_config.num_hidden_layers = options.layers
    model = CompositeForConditionalGeneration(config).eval().to(options.device)
    model.generation_config.eos_token_id = None
    processor = tiny_avt_processor()
    return model, processor, Collator(processor)


def task_of(name: str, folder: Path, options: argparse.Namespace) -> Task:
    write_benchmark(name, folder / name, samples=options.samples, seed=options.seed)
    benchmark = BENCHMARKS[name]
    questions = benchmark.questions(folder / name)
    return Task(name, benchmark, questions, benchmark.template, options.batch, options.new_tokens)


def providers_of(task: Task, opened: tuple[Any, Any, Collator], folder: Path) -> dict[str, Callable[[], Any]]:
    """What is timed, by name."""
    model, _, collator = opened
    made = Batches(task, collator)
    batches = [{k: v.to(model.device) for k, v in made[number].items()} for number in range(len(made))]
    answers = [model.generate(**batch, max_new_tokens=task.max_new_tokens, do_sample=False) for batch in batches]
    lengths = {answer.shape[1] - batch["input_ids"].shape[1] for answer, batch in zip(answers, batches, strict=True)}
    if lengths != {task.max_new_tokens}:
        raise RuntimeError(f"answers have {lengths} tokens: expected {task.max_new_tokens} each")

    @torch.no_grad()
    def generate() -> None:
        for batch in batches:
            model.generate(**batch, max_new_tokens=task.max_new_tokens, do_sample=False, use_cache=True)

    def run(workers: int) -> None:
        how = {"identity": {"target": "bench"}, "workers": workers, "console": Console(quiet=True)}
        evaluate(task, lambda: opened, folder / "out", overwrite=True, **how)

    workers = {"runner": lambda: run(0), "runner, 1 worker": lambda: run(1)}
    return {"generate": generate, "generate again": generate, **workers}


def processor_seconds() -> float:
    """Of this process and of those that it has ended."""
    own, others = resource.getrusage(resource.RUSAGE_SELF), resource.getrusage(resource.RUSAGE_CHILDREN)
    return own.ru_utime + own.ru_stime + others.ru_utime + others.ru_stime


def metered(work: Callable[[], Any], seconds: list[float]) -> Callable[[], Any]:
    """The work, which notes its processor seconds."""

    def measured() -> None:
        start = processor_seconds()
        work()
        seconds.append(processor_seconds() - start)

    return measured


def measure_task(task: Task, opened: tuple[Any, Any, Collator], folder: Path, options: argparse.Namespace) -> dict:
    """An interleaved run: wall and processor seconds of each provider, and the runner's over `generate`'s."""
    providers = providers_of(task, opened, folder)
    used: dict[str, list[float]] = {name: [] for name in providers}
    start = time.perf_counter()
    run = measure({name: metered(work, used[name]) for name, work in providers.items()}, **timing(options))
    say(f"{task.name}: {time.perf_counter() - start:.0f} s")
    used = {name: seconds[-options.rounds :] for name, seconds in used.items()}  # of the run that counts
    return {
        "questions": len(task.questions),
        "batch": task.batch_size,
        "new_tokens": task.max_new_tokens,
        "run": run.facts(),
        "wall": facts_of(run.seconds),
        "processor": facts_of(used),
    }


def facts_of(seconds: Mapping[str, Sequence[float]]) -> dict[str, Any]:
    """Provider -> median seconds, and these over `generate`'s: of the medians, and paired by round."""
    floor = seconds["generate"]
    return {
        name: {
            "seconds": rounded(statistics.median(own)),
            "over_generate": rounded(statistics.median(own) / statistics.median(floor)),
            "by_round": spread([ours / theirs for ours, theirs in zip(own, floor, strict=True)]),
        }
        for name, own in seconds.items()
    }


def report(record: dict[str, Any]) -> str:
    rows = []
    for name, facts in record["benchmarks"].items():
        for provider, wall in facts["wall"].items():
            both = (wall, facts["processor"][provider])
            rows.append([name, provider, *(one[key] for one in both for key in ("seconds", "over_generate"))])
    return table(["benchmark", "provider", "seconds", "over generate", "processor seconds", "over generate"], rows)


def main(arguments: Sequence[str] | None = None) -> int:
    parser = options_of(__doc__ or "", "bench_eval")
    parser.set_defaults(rounds=5, warmup=1, attempts=1, threads=1)
    parser.add_argument("--samples", type=int, default=64, help="questions of each benchmark, at least")
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--layers", type=int, default=8, help="of the text decoder")
    parser.add_argument("--new-tokens", type=int, default=64)
    options = parser.parse_args(arguments)
    record = header("bench_eval", options, arguments) | {"bar": BAR, "layers": options.layers, "benchmarks": {}}
    with fixed_threads(options.threads), tempfile.TemporaryDirectory() as place:
        opened = build(options)
        for name in NAMES:
            task = task_of(name, Path(place), options)
            record["benchmarks"][name] = measure_task(task, opened, Path(place), options)
            write(options.out, record)
    print(report(record))
    return 0


if __name__ == "__main__":
    sys.exit(main())
