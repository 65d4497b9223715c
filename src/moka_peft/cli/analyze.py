"""`moka analyze`: why an adapter does what it does, from the folder of its run."""

import importlib
import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from moka_peft.cli import quiet

if TYPE_CHECKING:
    from rich.console import Console

    from moka_peft.analysis.finished_run import FinishedRun

ANALYSES = {
    "modalities": ("adapted_layers:adapted_layers", "partial_modality:draw_partial"),
    "dominance": ("adapted_layers:adapted_layers", "dominance:draw_dominance"),
    "attention": ("rank_attention:check_has_attention", "attention_maps:draw_attention"),
    "subspaces": ("subspaces:check_has_modality_A", "subspaces:draw_subspaces"),
    "scales": ("cross_scales:trained_scale", "cross_scales:draw_scales"),
}
"""Name of an analysis -> what raises ValueError for a model that it does not apply to, and what draws it."""

NAMES = ", ".join(ANALYSES)


def run(
    folder: Annotated[Path, typer.Argument(help="folder of a finished run, or any adapter folder")],
    what: Annotated[list[str] | None, typer.Argument(help=f"some of {NAMES}; none: all that apply")] = None,
    samples: Annotated[int, typer.Option(min=1, help="held-out samples, drawn once and for all")] = 200,
    data: Annotated[Path | None, typer.Option(help="file of samples; none: the recipe's data.eval")] = None,
    out: Annotated[Path | None, typer.Option(help="folder for the results; none: FOLDER/analysis")] = None,
    question: Annotated[int, typer.Option(min=0, help="attention: of which held-out sample")] = 0,
    layer: Annotated[int | None, typer.Option(min=0, help="attention: drawn in detail; none: the least even")] = None,
    scales: Annotated[str, typer.Option(help="scales: values of lambda")] = "0,0.25,0.5,1,1.5,2",
) -> None:
    """Show why an adapter does what it does: tables here, and a PNG and a JSON file of each analysis.

    modalities: the adapter at the tokens of some modalities only. dominance: whose tokens its matrices learn from.
    attention: the words that media attend to. subspaces: how alike the modalities' A are. scales: other lambdas.
    """
    from rich.console import Console

    values = _numbers(scales)
    for name in what or ():
        if name not in ANALYSES:
            raise typer.BadParameter(f"{name}: expected some of {NAMES}", param_hint="what")
    quiet()
    from moka_peft.analysis.finished_run import FinishedRun

    console, opened, target = Console(), FinishedRun(folder, data), out or folder / "analysis"
    chosen = _applying(opened, what, console)
    target.mkdir(parents=True, exist_ok=True)
    for name in chosen:
        start = time.monotonic()
        result = _measure(name, opened, samples, question, values)
        _write(name, result, target, {"layer": layer} if name == "attention" else {})
        _tell(name, result, target, time.monotonic() - start, console)


def _numbers(text: str) -> list[float]:
    try:
        return [float(value) for value in text.split(",")]
    except ValueError as error:
        raise typer.BadParameter(f"{text}: expected numbers, as 0,0.5,1", param_hint="--scales") from error


def _applying(opened: "FinishedRun", what: list[str] | None, console: "Console") -> list[str]:
    """The analyses to do. Raises ValueError where one that was asked for does not apply to the adapter."""
    found = []
    for name in dict.fromkeys(what or ANALYSES):
        try:
            _load(ANALYSES[name][0])(opened.model)
        except ValueError as error:
            if what:
                raise
            console.print(f"{name}: left out. {error}", soft_wrap=True, highlight=False, markup=False)
        else:
            found.append(name)
    return found


def _measure(name: str, opened: "FinishedRun", count: int, question: int, scales: list[float]) -> dict[str, Any]:
    from moka_peft.analysis.attention_maps import measure_attention
    from moka_peft.analysis.cross_scales import measure_scales
    from moka_peft.analysis.dominance import measure_dominance
    from moka_peft.analysis.partial_modality import measure_partial
    from moka_peft.analysis.subspaces import measure_subspaces

    on, collator = (opened.model, opened.processor), opened.collator
    answered = opened.evaluation.model_dump(include={"batch_size", "max_new_tokens", "metric"})
    match name:
        case "modalities":
            return measure_partial(*on, opened.choose(count), collator=collator, **answered)
        case "dominance":
            return measure_dominance(*on, opened.choose(count), collator=collator)
        case "attention":
            return measure_attention(*on, opened.sample(question), collator=collator)
        case "subspaces":
            return measure_subspaces(opened.model)
        case _:
            return measure_scales(*on, opened.choose(count), scales=scales, collator=collator, **answered)


def _write(name: str, result: dict[str, Any], target: Path, options: dict[str, Any]) -> None:
    from moka_peft.training.folder import write_whole

    write_whole(target / f"{name}.json", json.dumps(result, ensure_ascii=False))
    _load(ANALYSES[name][1])(result, target / f"{name}.png", **options)


def _tell(name: str, result: dict[str, Any], target: Path, seconds: float, console: "Console") -> None:
    from moka_peft.cli.analyzed import summary

    console.print(summary(name, result))
    console.print(f"{target / name}.png and .json, {seconds:.0f} s\n", soft_wrap=True, highlight=False, markup=False)


def _load(target: str) -> Callable[..., Any]:
    """A function of `moka_peft.analysis`, by module and name."""
    module, _, name = target.partition(":")
    return getattr(importlib.import_module(f"moka_peft.analysis.{module}"), name)
