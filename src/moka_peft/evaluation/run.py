"""A benchmark is put to a model: answers in fixed batches, by all processes together, kept as they come."""

import time
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from importlib import metadata
from pathlib import Path
from typing import Any

import torch
from rich.console import Console

from moka_peft.data import Collator
from moka_peft.evaluation import run_folder
from moka_peft.evaluation.batches import Batches, load_ahead
from moka_peft.evaluation.parts import Answered, Part
from moka_peft.evaluation.progress import RecordProgress
from moka_peft.evaluation.record import Record
from moka_peft.evaluation.task import Task
from moka_peft.training.answers import answer_batch
from moka_peft.training.determinism import fixed_threads
from moka_peft.training.folder import read_json
from moka_peft.training.processes import gather, is_sharded, on_first, own_share, rank, world_size

Opened = tuple[Any, Any, Collator]  # a model, its processor, and what makes batches for it
PACKAGES = ("moka-peft", "torch", "transformers", "peft")


def evaluate(
    task: Task,
    open_model: Callable[[], Opened],
    out: Path,
    *,
    identity: Mapping[str, Any],
    workers: int = 0,
    overwrite: bool = False,
    console: Console | None = None,
) -> list[Record]:
    """Answers a task's questions and gives the records, in the order of the questions.

    OUT gets settings.json, records.jsonl and summary.json. What is answered stays, whatever ends the run, and the same
    call goes on; a finished run is only read, without opening the model. identity: whose records they are, with the
    `target`'s name. workers: processes that load media ahead. Under `torchrun` or `accelerate launch` the processes
    share the batches. Raises ValueError where the folder holds records of other settings, OSError where another run is
    at work in it.
    """
    if is_sharded():
        raise ValueError(
            "`moka eval` holds a whole model in each process: expected no FSDP and no ZeRO-3. Launch it without them."
        )
    console = (console or Console()) if rank() == 0 else Console(quiet=True)
    settings = {**identity, **task.settings(), "versions": versions(), "num_threads": torch.get_num_threads()}
    with ExitStack() as stack:
        on_first(lambda: stack.enter_context(run_folder.alone(out)))
        if not on_first(lambda: run_folder.claim(out, task, settings, overwrite=overwrite)):
            done = on_first(lambda: sorted(run_folder.answered(out, task)))
            missing = sorted(set(range(len(task.batches))) - set(done))
            if missing:
                if done:
                    console.print(f"{task.name}: going on after {_count(task, done)} records", soft_wrap=True)
                threads = on_first(lambda: read_json(out / run_folder.SETTINGS)["num_threads"])
                with fixed_threads(threads):  # on which the last bits of sums on the CPU depend
                    answer(task, *open_model(), out, missing, workers=workers, console=console)
            gather(None)
            on_first(lambda: run_folder.finish(out, task))
    return run_folder.records_of(out, task)


def answer(
    task: Task,
    model: Any,
    processor: Any,
    collator: Collator,
    out: Path,
    missing: list[int],
    *,
    workers: int,
    console: Console,
) -> None:
    """Answers this process's share of the missing batches and keeps each as soon as it is there."""
    model.eval()
    own = [missing[place] for place in own_share(len(missing))]
    batches = load_ahead(Batches(task, collator), own, workers)
    done = len(task.asked) - _count(task, missing)
    with (
        RecordProgress(console, task.name, len(task.asked), done, _count(task, own)) as progress,
        Part(out / run_folder.PARTS / f"part-{rank()}.jsonl") as part,
    ):
        start = time.monotonic()
        for number, batch in zip(own, batches, strict=True):
            names = [question.id for question in task.batches[number]]
            said = answer_batch(model, processor, batch, task.max_new_tokens)[: len(names)]  # without blank rows
            start, seconds = time.monotonic(), time.monotonic() - start
            part.append(Answered(number, dict(zip(names, said, strict=True)), round(seconds, 4), world_size()))
            progress.advance(len(names))


def versions() -> dict[str, str]:
    """The packages that answers depend on."""
    return {name: metadata.version(name) for name in PACKAGES}


def _count(task: Task, numbers: list[int]) -> int:
    return sum(len(task.batches[number]) for number in numbers)
