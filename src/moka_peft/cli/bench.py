"""`moka bench`: what a training step costs with LoRA and with MokA, on this machine and a model of one's own."""

import json
import sys
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from moka_peft.cli import quiet

if TYPE_CHECKING:
    from rich.table import Table

SMALL = "a 4-layer, 512-wide Qwen2.5-VL shape"


def run(
    model: Annotated[str | None, typer.Argument(help=f"folder or hub id of a model; none: {SMALL}")] = None,
    rank: Annotated[int, typer.Option(min=1)] = 8,
    dropout: Annotated[float, typer.Option(min=0, max=0.99)] = 0.0,
    batch: Annotated[int, typer.Option(min=1, help="rows of a step")] = 4,
    tokens: Annotated[int, typer.Option(min=1, help="of all rows together")] = 1024,
    checkpointing: Annotated[bool, typer.Option("--checkpointing", help="With gradient checkpointing.")] = False,
    rounds: Annotated[int, typer.Option(min=2, help="steps of each, in turn")] = 15,
    threads: Annotated[int | None, typer.Option(min=1, help="of the CPU; none: as torch chooses")] = None,
    dtype: Annotated[
        Literal["auto", "float32", "bfloat16", "float16"], typer.Option(help="auto: as the model is stored")
    ] = "auto",
    seed: Annotated[int, typer.Option()] = 0,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object instead of the table.")] = False,
) -> None:
    """Time training steps of a model frozen, with LoRA and with MokA, in turn; about a minute on two CPU cores.

    The chats are random tokens with three modalities; the model's media encoders take no part.
    """
    import torch

    from moka_peft.analysis.speed import ChatLayout
    from moka_peft.analysis.speed.model_cost import model_cost
    from moka_peft.cli.env import environment
    from moka_peft.training.determinism import fixed_threads

    quiet()
    try:
        layout = ChatLayout(batch=batch, length=tokens // batch)
    except ValueError as error:
        raise typer.BadParameter(f"{error}", param_hint="--tokens") from error
    with fixed_threads(threads or torch.get_num_threads()):
        cost = model_cost(
            _open(model, dtype),
            layout,
            rank=rank,
            dropout=dropout,
            checkpointing=checkpointing,
            rounds=rounds,
            seed=seed,
            say=lambda line: print(line, file=sys.stderr, flush=True),
        )
        found = {"environment": environment(), "model": model or SMALL, **cost}
    _show(found, as_json)


def _show(found: dict[str, Any], as_json: bool) -> None:
    """Prints what was measured. Raises RuntimeError where it does not count."""
    if as_json:
        print(json.dumps(found))
    else:
        from rich.console import Console

        Console().print(table(found), summary(found), sep="\n")
    if found["run"]["void"]:
        raise RuntimeError(
            f"these timings do not count: {'; '.join(found['run']['void'])}. Close other programs and repeat."
        )


def _open(name: str | None, dtype: str) -> Any:
    if name is None:
        import torch

        from moka_peft.analysis.speed import small_qwen2_5_vl
        from moka_peft.training.processes import local_device

        small = small_qwen2_5_vl(device=local_device())
        return small if dtype == "auto" else small.to(getattr(torch, dtype))
    from moka_peft.training.model import load_model

    try:
        return load_model(name, dtype=dtype, with_processor=False)[0]
    except (OSError, ValueError) as error:
        raise OSError(f"`model` {name!r} cannot be opened: {error}") from error


def table(found: dict[str, Any]) -> "Table":
    """Step and adapter time, and the memory kept for the backward."""
    from rich.table import Table

    title = f"{found['model']}: {found['tokens']} tokens in {found['batch']} rows, rank {found['rank']}"
    shown = Table(title=title, title_justify="left")
    for name in ("", "step", "tokens/s", "adapter", "of the base", "kept for the backward"):
        shown.add_column(name, justify="right" if name else "left")
    names = {"base": "frozen base", "lora": "LoRA (PEFT)", "moka": "MokA"}
    for key, name in names.items():
        facts = found["providers"][key]
        own = facts.get("adapter_seconds", {}).get("median")
        shown.add_row(
            name,
            f"{facts['seconds'] * 1e3:.1f} ms",
            f"{facts['tokens_per_second']:.0f}",
            "" if own is None else f"{own * 1e3:.1f} ms",
            "" if own is None else f"{facts['adapter_share_of_base']:.1%}",
            f"{facts['kept_bytes'] / 2**20:.1f} MiB",
        )
    return shown


def summary(found: dict[str, Any]) -> str:
    """MokA over LoRA in words, and how well the frozen base repeats itself."""
    ratio, run = found["moka_over_lora"], found["run"]
    low, high = (ratio["total_by_round"][end] for end in ("low", "high"))
    adapter = (
        "LoRA adds no measurable time" if ratio["adapter"] is None else f"{ratio['adapter']:.2f} of LoRA's adapter time"
    )
    return (
        f"MokA's step takes {ratio['total']:.3f} of LoRA's (half of the rounds: {low:.3f} to {high:.3f}), "
        f"{adapter}; base over base {run['base_over_base']['base']:.3f}, {run['rounds']} rounds"
    )
