"""`moka import-authors-adapter`: a checkpoint of the authors' code becomes an adapter that PEFT opens."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from moka_peft.training.authors import Imported


def run(
    source: Annotated[Path, typer.Argument(help="folder with adapter_model.bin, or the visual-text model.safetensors")],
    target: Annotated[Path, typer.Argument(help="folder to write")],
    base: Annotated[str | None, typer.Option(help="the base model's name, for the adapter's config")] = None,
    layers_under: Annotated[
        str | None,
        typer.Option(
            metavar="MODULE",
            help="the base model's module that has `layers`: text_model.model in a composite (the default with "
            "projectors), model in a language model (the default without)",
        ),
    ] = None,
    recipe: Annotated[
        Path | None, typer.Option(help="recipe whose `model` is the base: then `moka generate` opens the folder")
    ] = None,
    lora_alpha: Annotated[float | None, typer.Option(help="where the folder has no adapter_config.json")] = None,
    lora_dropout: Annotated[float | None, typer.Option(help="where the folder has no adapter_config.json")] = None,
    cross_scale: Annotated[float | None, typer.Option(help="where the folder has no adapter_config.json")] = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace an earlier import.")] = False,
) -> None:
    """Make an adapter folder of a checkpoint that the authors' code wrote."""
    from moka_peft.training.authors import import_adapter

    show(
        import_adapter(
            source,
            target,
            base=base,
            layers_under=layers_under,
            recipe=recipe,
            lora_alpha=lora_alpha,
            lora_dropout=lora_dropout,
            cross_scale=cross_scale,
            overwrite=overwrite,
        )
    )
    print(f"written: {target}")


def show(found: "Imported") -> None:
    """Prints what was found, what was assumed and what was left."""
    checkpoint, factors = found.checkpoint, found.checkpoint.factors
    config: Any = found.config
    print(f"read: {', '.join(checkpoint.found.files)}")
    if factors is None:
        print("adapter: none, as after stage 1")
    else:
        place = "before" if config.scale_before_attention else "after"
        print(f"form: {factors.form}, {factors.layers} layers x {', '.join(factors.modules)}")
        print(
            f"adapter: r {config.r}, scaling {config.lora_alpha / config.r:g} {place} the attention, "
            f"lambda {config.cross_scale:g}, instruction span {config.instruction_span}"
        )
    print(f"projectors: {', '.join(checkpoint.modules_to_save) or 'none'}")
    for name, value in found.assumed.items():
        print(f"assumed: {name} {value:g}, as in the released scripts")
    for name, count in checkpoint.dropped.items():
        print(f"dropped, unused: {name}" + (f" ({count} times)" if count > 1 else ""))
    if checkpoint.found.frozen:
        print(f"not read: {len(checkpoint.found.frozen)} frozen weights of the base model")
