"""`moka train`: a recipe becomes an adapter."""

from pathlib import Path
from typing import Annotated

import typer

from moka_peft.cli import quiet


def run(
    recipe: Annotated[Path, typer.Argument(help="YAML file, for example recipes/quickstart.yaml")],
    settings: Annotated[list[str] | None, typer.Argument(help="key=value over the recipe")] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Go on from the newest complete checkpoint.")] = False,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Replace an earlier run in the output folder.")
    ] = False,
    tiny: Annotated[
        bool, typer.Option("--tiny", help="Seconds instead of days: tiny random models, made-up data, two steps.")
    ] = False,
    push_to_hub: Annotated[
        str | None, typer.Option("--push-to-hub", metavar="USER/NAME", help="Upload the adapter when it is trained.")
    ] = None,
) -> None:
    """Train an adapter from a recipe, or resume its run."""
    from moka_peft.training import load_recipe, train
    from moka_peft.training.processes import rank

    quiet()
    flags = [f"{name}=true" for name, given in (("resume", resume), ("overwrite", overwrite)) if given]
    flags += [f"push_to_hub={push_to_hub}"] if push_to_hub else []
    plan = load_recipe(recipe, [*(settings or ()), *flags], to_train=True, tiny=tiny)
    if tiny and rank() == 0:
        print(f"--tiny: random models and made-up data, in {Path(plan.output_dir).parent}; no result means anything")
    train(plan)
