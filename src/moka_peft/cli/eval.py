"""`moka eval`: benchmarks on trained adapters and on base models, with records that can be scored again."""

import functools
import gc
from collections import Counter
from collections.abc import Callable, Sequence
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, TypeVar

import typer

from moka_peft.cli import quiet
from moka_peft.cli.chosen_tasks import Choice, names_of, settings_of
from moka_peft.cli.evaluated import check_comparable, report

if TYPE_CHECKING:
    from rich.console import Console

    from moka_peft.data import Collator
    from moka_peft.evaluation import Record
    from moka_peft.evaluation.target import Target
    from moka_peft.evaluation.task import Task

T = TypeVar("T")
PATIENCE = timedelta(days=2)  # of a process that has done its share: shares may differ by hours


def run(
    targets: Annotated[
        list[str], typer.Argument(help="recipes of finished runs, adapter folders, base models (folder or hub id)")
    ],
    benchmarks: Annotated[
        str | None, typer.Option(help="such as mme,pope; none: the recipe's evaluation.benchmarks")
    ] = None,
    settings: Annotated[
        list[str] | None, typer.Option("--set", metavar="NAME.KEY=VALUE", help="over evaluation.benchmarks; repeatable")
    ] = None,
    data: Annotated[Path, typer.Option(help="where the benchmarks' folders are, each under its name")] = Path("data"),
    limit: Annotated[
        int | None, typer.Option(min=1, help="ask the first questions only; the result is partial")
    ] = None,
    batch_size: Annotated[
        int | None, typer.Option(min=1, help="none: the recipe's evaluation.batch_size, or 8")
    ] = None,
    max_new_tokens: Annotated[int | None, typer.Option(min=1, help="longest answer; none: the benchmark's")] = None,
    workers: Annotated[
        int | None, typer.Option(min=0, help="processes that load media ahead; none: 4 on a GPU, 0 on the CPU")
    ] = None,
    out: Annotated[Path | None, typer.Option(help="folder for the results; none: ADAPTER/benchmarks")] = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace earlier records.")] = False,
    tiny: Annotated[bool, typer.Option("--tiny", help="Made-up benchmarks, and of a recipe its tiny run.")] = False,
    compare: Annotated[bool, typer.Option("--compare", help="Show the targets side by side, with tests.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object instead of text.")] = False,
) -> None:
    """Run benchmarks on adapters and models, and score them.

    Answers are kept as they come: an interrupted run goes on when the command is repeated, and what is finished is
    only shown.
    """
    from rich.console import Console

    from moka_peft.evaluation.target import find_target
    from moka_peft.training.processes import process_group, rank

    quiet()
    if twice := [name for name, times in Counter(targets).items() if times > 1]:
        raise typer.BadParameter(f"{twice[0]} is given twice. Keep one of them.", param_hint="targets")
    if compare and len(targets) < 2:
        raise typer.BadParameter("needs several targets. Name another one.", param_hint="--compare")
    sizes = {"limit": limit, "batch_size": batch_size, "max_new_tokens": max_new_tokens}
    choice = Choice(names_of(benchmarks), settings_of(settings or ()), data, **sizes, tiny=tiny)
    console = Console(stderr=as_json) if rank() == 0 else Console(quiet=True)
    if tiny:
        console.print("--tiny: made-up questions; no result means anything")
    with process_group(PATIENCE):
        found = _first_alone(lambda: [find_target(name, tiny=tiny) for name in targets])
        folders = _first_alone(lambda: _folders(found, out, tiny))
        planned = _first_alone(lambda: [(target, choice.tasks(target)) for target in found])
        if compare:
            _first_alone(lambda: check_comparable(planned))
        records = {
            target.name: _evaluate(target, tasks, folders[target.name], workers, overwrite, console)
            for target, tasks in planned
        }
    if rank() == 0:
        report(planned, folders, records, compare, as_json, console)


def _first_alone(work: Callable[[], T]) -> T:
    """What `work` gives in each process; process 0 begins, so that what is wrong is told once."""
    from moka_peft.training.processes import on_first

    done: list[T] = []
    on_first(lambda: done.append(work()))
    return done[0] if done else work()


def _folders(targets: "Sequence[Target]", out: Path | None, tiny: bool) -> dict[str, Path]:
    """Where each target's records go: below `--out` they need the target's name, too, where there are several.

    Made-up questions keep out of the place of real ones.
    """
    if out is None or len(targets) == 1:
        return {one.name: out or (one.tiny_out if tiny else one.out) for one in targets}
    count = Counter(target.label for target in targets)
    labels = [one.label if count[one.label] == 1 else one.name.strip("./").replace("/", "--") for one in targets]
    if same := [label for label, times in Counter(labels).items() if times > 1]:
        raise typer.BadParameter(
            f"has one place for several targets, {same[0]}. Evaluate them one by one, each with its own.",
            param_hint="--out",
        )
    return {target.name: out / label for target, label in zip(targets, labels, strict=True)}


def _evaluate(
    target: "Target",
    tasks: "Sequence[Task]",
    folder: Path,
    workers: int | None,
    overwrite: bool,
    console: "Console",
) -> "dict[str, list[Record]]":
    """The records of all of a target's tasks; its model is opened once, if at all, and given up in the end."""
    import torch

    from moka_peft.evaluation.run import evaluate

    @functools.cache
    def opened() -> "tuple[Any, Any, Collator]":
        model, processor, collator = target.open()
        for task in tasks:  # a model that does not take a benchmark's media says so before hours of another one
            collator.collate_prompts([task.sample(task.asked[0], collator.media)])
        return model, processor, collator

    workers = (4 if torch.cuda.is_available() else 0) if workers is None else workers
    how = {"identity": target.identity, "workers": workers, "overwrite": overwrite, "console": console}
    records = {task.name: evaluate(task, opened, folder / task.name, **how) for task in tasks}
    opened.cache_clear()
    gc.collect()
    torch.cuda.empty_cache()
    return records
