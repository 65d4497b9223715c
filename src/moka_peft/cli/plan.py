"""`moka plan`: what a recipe needs of each GPU, before anything is downloaded."""

import json
from pathlib import Path
from typing import Annotated

import typer

from moka_peft.cli import quiet


def run(
    recipe: Annotated[Path, typer.Argument(help="YAML file; its data and models may be elsewhere")],
    settings: Annotated[list[str] | None, typer.Argument(help="key=value over the recipe")] = None,
    gpus: Annotated[int, typer.Option(min=1, help="processes, one GPU each")] = 1,
    strategy: Annotated[str, typer.Option(help="ddp, fsdp, zero2 or zero3: what is shared out among the GPUs")] = "ddp",
    memory_gb: Annotated[float | None, typer.Option(min=0, help="of one GPU, in GiB: says whether it fits")] = None,
    tokens: Annotated[int | None, typer.Option(min=1, help="of the longest sample, media and text together")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object instead of text.")] = False,
) -> None:
    """Count a recipe's parameters, memory per GPU and tokens per step; loads and downloads nothing."""
    from moka_peft.training.plan.memory import STRATEGIES
    from moka_peft.training.plan.plan import make_plan
    from moka_peft.training.plan.report import as_json as plan_json
    from moka_peft.training.plan.report import as_text
    from moka_peft.training.recipe_file import load_recipe

    if strategy not in STRATEGIES:
        raise typer.BadParameter(f"`--strategy` is unknown: expected one of {', '.join(STRATEGIES)}, got {strategy}.")
    quiet()
    plan = make_plan(
        load_recipe(recipe, settings or (), without_files=True), gpus=gpus, strategy=strategy, tokens=tokens
    )
    if as_json:
        print(json.dumps({"recipe": str(recipe), **plan_json(plan, memory_gb)}, indent=1))
    else:
        print(*as_text(plan, memory_gb), sep="\n")
