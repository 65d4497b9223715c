"""`moka export-authors-adapter`: an adapter of ours becomes a checkpoint that the authors' code reads."""

from pathlib import Path
from typing import Annotated

import typer


def run(
    source: Annotated[Path, typer.Argument(help="adapter folder, of a run or of an import")],
    target: Annotated[Path, typer.Argument(help="folder to write")],
    form: Annotated[
        str | None, typer.Option(help="avt or vt; by default the one that the adapter's options are of")
    ] = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace an earlier export.")] = False,
) -> None:
    """Write an adapter as the authors' code reads it."""
    from moka_peft.training.authors import FORMS, export_adapter

    if form is not None and form not in FORMS:
        raise typer.BadParameter(f"--form {form}: expected one of {', '.join(FORMS)}")
    done = export_adapter(source, target, form=form, overwrite=overwrite)
    print(f"form: {done.form}, {done.layers} layers x {', '.join(done.modules)}, r {done.rank}")
    print(f"projectors: {', '.join(done.projectors) or 'none'}")
    if done.unused:
        print(f"zeros, which their code never reads: {done.unused}")
    print(f"written: {target}")
