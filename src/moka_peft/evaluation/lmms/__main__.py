"""`python -m moka_peft.evaluation.lmms music_avqa data/music_avqa tasks`: makes a benchmark a task of lmms-eval."""

import sys
from pathlib import Path
from typing import Annotated

import typer

from moka_peft.evaluation.lmms.task import write_task


def write(
    name: Annotated[str, typer.Argument(help="the benchmark: music_avqa, ave, ...")],
    folder: Annotated[Path, typer.Argument(help="where it lies, as published")],
    out: Annotated[Path, typer.Argument(help="where lmms-eval finds the task: its `--include_path`")],
) -> None:
    """Write a benchmark as a task of lmms-eval, called moka_NAME."""
    try:
        task = write_task(name, folder, out)
    except (OSError, ValueError) as error:
        sys.exit(f"moka: {error}")
    typer.echo(f"{task}: lmms-eval --include_path {out} --tasks moka_{name}")


if __name__ == "__main__":
    typer.run(write)
