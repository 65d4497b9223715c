"""`moka compare`: methods x seeds on one recipe, under equal conditions, with tables and a report."""

import shlex
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from moka_peft.cli import quiet

if TYPE_CHECKING:
    from moka_peft.analysis.compare.grid import Wanted
    from moka_peft.analysis.compare.workers import Failure


def run(
    context: typer.Context,
    recipe: Annotated[Path, typer.Argument(help="YAML file; its method and seed are replaced")],
    settings: Annotated[list[str] | None, typer.Argument(help="key=value over the recipe")] = None,
    methods: Annotated[str | None, typer.Option(help="such as lora,moka; none: the table of MokA's paper")] = None,
    seeds: Annotated[
        list[str] | None, typer.Option(help="how many: 5, or for some methods lora=10,moka=10; repeatable")
    ] = None,
    equal: Annotated[
        Literal["rank", "parameters", "both"] | None, typer.Option(help="none: both, or neither beside --vary")
    ] = None,
    parameters_of: Annotated[
        str, typer.Option(metavar="METHOD[:RANK]", help="whose parameters all have in the second table")
    ] = "moka",
    vary: Annotated[
        list[str] | None, typer.Option(metavar="KEY=V1,V2", help="a table along a key of the recipe; repeatable")
    ] = None,
    baseline: Annotated[str, typer.Option(help="the method that the others are compared with")] = "lora",
    out: Annotated[Path | None, typer.Option(help="folder of the runs; none: output_dir with _compare")] = None,
    name: Annotated[str | None, typer.Option(help="of the report's folder; none: the recipe's")] = None,
    processes: Annotated[int, typer.Option(min=1, help="runs at a time")] = 1,
    minutes: Annotated[
        float | None, typer.Option(min=0, help="start no run later than this; repeat the command to go on")
    ] = None,
    report_only: Annotated[bool, typer.Option("--report-only", help="Run nothing; report what is finished.")] = False,
) -> None:
    """Train every method with every seed, and report the differences with their intervals.

    Runs are kept: an interrupted comparison goes on where it was, and another one in the same folder shares them.
    """
    from rich.console import Console

    from moka_peft.analysis.compare.grid import plan_grid
    from moka_peft.analysis.compare.run import read_tables, run_grid
    from moka_peft.training import load_recipe

    quiet()
    wanted = _wanted(methods, seeds or ["5"], equal, parameters_of, vary or [], baseline)
    plan = load_recipe(recipe, settings or (), to_train=not report_only)
    grid, console = plan_grid(plan, wanted), Console()
    out = out or Path(f"{plan.output_dir}_compare")
    limit = float("inf") if minutes is None else minutes
    failures = [] if report_only else run_grid(grid, out, processes=processes, minutes=limit, console=console)
    tables, missing = read_tables(grid, out, baseline)
    notes = [*grid.notes]
    if missing:
        notes.append(f"{missing} of {len(grid.cells)} runs are not finished; the tables hold the others.")
        console.print(notes[-1], soft_wrap=True, markup=False)
    title = name or recipe.stem
    facts = {"command": shlex.join(["moka", *context.obj]), "recipe": str(recipe), "seeds": dict(wanted.seeds)}
    facts |= {"changed": settings or [], **plan.settings()}
    _report(tables, out / "reports" / title, console, title=title, notes=notes, settings=facts)
    _check(failures, len(grid.cells))


def _report(tables: Sequence[Any], folder: Path, console: Any, **words: Any) -> None:
    from moka_peft.analysis.compare.report import write_reports
    from moka_peft.analysis.compare.table import show

    show(tables, console)
    write_reports(tables, folder, **words)
    console.print(f"the report is in {folder}", soft_wrap=True, markup=False)


def _check(failures: "Sequence[Failure]", total: int) -> None:
    """Lists what failed. Raises RuntimeError where anything did."""
    if failures:
        for failure in failures:
            print(f"moka: {failure.cell.name}: {failure.error}", file=sys.stderr)
        raise RuntimeError(f"{len(failures)} of {total} runs failed. Repeat the command to try them again.")


def _wanted(
    methods: str | None, seeds: Sequence[str], equal: str | None, budget: str, vary: Sequence[str], baseline: str
) -> "Wanted":
    """The options as one plan. Raises typer.BadParameter for what cannot be read or does not fit together."""
    from moka_peft.analysis.compare.grid import Wanted
    from moka_peft.analysis.compare.methods import PAPER_TABLE

    chosen = tuple(dict.fromkeys(methods.split(","))) if methods is not None else PAPER_TABLE
    _check_known(chosen, "--methods")
    if baseline not in chosen:
        raise typer.BadParameter(
            f"is not compared: expected one of {', '.join(chosen)}, got {baseline}.", param_hint="--baseline"
        )
    tables = {"both": ("rank", "parameters"), None: () if vary else ("rank", "parameters")}.get(equal, (equal,))
    return Wanted(chosen, _seeds(seeds, chosen), tables, _budget(budget), _axes(vary), baseline)


def _check_known(names: Sequence[str], option: str) -> None:
    from moka_peft.analysis.compare.methods import VARIANTS

    if unknown := [name for name in names if name not in VARIANTS]:
        raise typer.BadParameter(
            f"knows no {', '.join(map(repr, unknown))}: expected some of {', '.join(VARIANTS)}.", param_hint=option
        )


def _seeds(given: Sequence[str], methods: Sequence[str]) -> dict[str, int]:
    """How many seeds each method has: ["5", "lora=10,moka=10"]; a number alone is for those that are not named."""
    own: dict[str, int] = {}
    for text in ",".join(given).split(","):
        name, equals, number = text.rpartition("=")
        if not number.isdecimal() or int(number) < 1 or (equals and name not in methods):
            raise typer.BadParameter(
                f"expected a number > 0, or METHOD=number of a method that is compared, got {text!r}.",
                param_hint="--seeds",
            )
        if name in own:
            raise typer.BadParameter(f"is given twice for {name or 'all'}. Keep one of them.", param_hint="--seeds")
        own[name] = int(number)
    return {name: own.get(name, own.get("", 5)) for name in methods}


def _budget(text: str) -> tuple[str, int | None]:
    variant, colon, rank = text.partition(":")
    _check_known([variant], "--parameters-of")
    if variant == "none" or (colon and not (rank.isdecimal() and int(rank) > 0)):
        raise typer.BadParameter(
            f"expected METHOD or METHOD:RANK with a rank > 0, got {text!r}.", param_hint="--parameters-of"
        )
    return variant, int(rank) if colon else None


def _axes(given: Sequence[str]) -> dict[str, list[Any]]:
    """Key -> values: ["adapter.r=2,4"] -> {"adapter.r": [2, 4]}; values are YAML, so that lists are possible."""
    import yaml

    from moka_peft.training.recipe_file import RecipeLoader

    axes = {}
    for text in given:
        key, equals, values = text.partition("=")
        if key in axes:
            raise typer.BadParameter(f"is given twice for {key}. Put all values into one.", param_hint="--vary")
        try:
            axes[key] = yaml.load(f"[{values}]", Loader=RecipeLoader)
        except yaml.YAMLError:
            equals = ""
        if not (equals and key and axes[key]):
            raise typer.BadParameter(f"expected KEY=VALUE,VALUE, got {text!r}.", param_hint="--vary")
    return axes
