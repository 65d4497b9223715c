"""A plan as text and as JSON."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from moka_peft.training.plan.plan import RUNTIME, Plan

GIB = 2**30


def as_json(plan: Plan, memory_gib: float | None = None) -> dict[str, Any]:
    """Everything that is known: parameters by part, bytes per GPU by kind, samples, tokens per step."""
    return {
        "parameters": {"total": plan.parameters, "trained": plan.trained, "trained_percent": percent(plan)},
        "parts": {name: asdict(part) for name, part in plan.parts.items()},
        "gpus": plan.gpus,
        "strategy": plan.strategy,
        "bytes_per_gpu": {
            **asdict(plan.held),
            "activations": plan.activations.to_dict(),
            "runtime": RUNTIME,
            "total": plan.bytes_per_gpu,
        },
        "not_counted": None if plan.towers_run else not_counted(plan),
        "fits": None if memory_gib is None else fits(plan, memory_gib),
        "gradient_checkpointing": plan.checkpointing,
        "micro_batch": {"rows": plan.rows, "tokens_per_row": plan.row_length},
        "samples": [{**asdict(sample), "total": sample.total} for sample in plan.samples],
        "samples_per_step": plan.samples_per_step,
        "tokens_per_step": plan.tokens_per_step,
    }


def as_text(plan: Plan, memory_gib: float | None = None) -> list[str]:
    """Three tables in words: the parameters, the memory of a GPU, the tokens of a step."""
    lines = [*_parameters(plan), "", *_memory(plan), *_fit(plan, memory_gib), "", *_tokens(plan)]
    return lines if plan.towers_run else [*lines, not_counted(plan)]


def not_counted(plan: Plan) -> str:
    """What the sizes leave out of a model that encodes its media itself."""
    if trained := _trained_media(plan):
        return (
            f"Not counted, and on top of the total: what the model's own {' and '.join(trained)} hold; they train, so "
            f"it stays until the backward."
        )
    return "Not counted: what the model's own towers hold while they run; they are frozen and keep nothing."


def _trained_media(plan: Plan) -> list[str]:
    """The parts around the language model that train."""
    return [name for name, part in plan.parts.items() if part.trained and name not in ("text", "adapter")]


def percent(plan: Plan) -> float:
    """The share of the parameters that train, in per cent."""
    return round(100 * plan.trained / plan.parameters, 4)


def fits(plan: Plan, memory_gib: float) -> bool:
    """Whether a GPU of so many GiB holds it."""
    return plan.bytes_per_gpu <= memory_gib * GIB


def _parameters(plan: Plan) -> list[str]:
    rows = [(name, f"{part.parameters:,}", f"{part.trained:,}") for name, part in plan.parts.items()]
    rows.append(("total", f"{plan.parameters:,}", f"{plan.trained:,}"))
    return [
        *_table(("parameters", "", "trained"), rows),
        f"{percent(plan):.2f} % of the parameters train.",
    ]


def _memory(plan: Plan) -> list[str]:
    held, active = plan.held, plan.activations
    checkpoints = "with gradient checkpointing" if plan.checkpointing else "without gradient checkpointing"
    still = {"projectors"} >= {*_trained_media(plan)}
    stays = active.projectors + active.decoder + active.logits
    rows = [
        ("weights", held.weights, "sharded" if held.gathered else ""),
        ("gathered weights", held.gathered, "of the layers that run, and of what is in no layer"),
        ("gradients", held.gradients, ""),
        ("gradients being sent", held.buckets, ""),
        ("optimizer states", held.optimizer, ""),
        ("activations", active.peak, f"{checkpoints}, of which"),
        (
            "  embedded media",
            active.projectors,
            "and the decoder's input" + ("; frozen encoders keep nothing" if still else "; and what encoders keep"),
        ),
        ("  decoder", active.decoder, "the inputs of its layers" if plan.checkpointing else ""),
        ("  logits and loss", active.logits, ""),
        ("  backward", active.peak - stays, "at its highest"),
        ("runtime", RUNTIME, "CUDA context, workspaces, gaps: an estimate"),
        ("total", plan.bytes_per_gpu, "" if plan.towers_run or not _trained_media(plan) else "at least"),
    ]
    shown = [(name, f"{size / GIB:.2f}", note) for name, size, note in rows if size]
    where = "on one GPU" if plan.gpus == 1 else f"on each of {plan.gpus} GPUs, {plan.strategy}"
    return _table((f"GiB {where}", "", ""), shown)


def _fit(plan: Plan, memory_gib: float | None) -> list[str]:
    if memory_gib is None:
        return []
    room = memory_gib - plan.bytes_per_gpu / GIB
    if room >= 0:
        return [f"It fits into {memory_gib:g} GiB, with {room:.1f} to spare."]
    return [f"It does not fit into {memory_gib:g} GiB: {-room:.1f} too much."]


def _tokens(plan: Plan) -> list[str]:
    lines = []
    for sample in plan.samples:
        kinds = (
            f"{tokens} {kind} ({_units(kind, sample.units[kind], plan.towers_run)})"
            for kind, tokens in sample.media.items()
        )
        parts = " + ".join([*kinds, f"{sample.text} text"])
        lines.append(f"A sample of {sample.source}: {parts} = {sample.total} tokens; {sample.basis}.")
    lines.append(
        f"A step: {plan.samples_per_step} samples, about {plan.tokens_per_step:,} tokens; {plan.rows} "
        f"row{'s' if plan.rows != 1 else ''} of "
        f"{plan.row_length} tokens at once on each GPU"
        + (f", {plan.accumulation} times a step." if plan.accumulation > 1 else ".")
    )
    return lines


def _units(kind: str, count: int, is_composite: bool) -> str:
    word = {"image": "image", "video": "frame", "audio": "segment" if is_composite else "second"}.get(kind, kind)
    return f"{count} {word}{'s' if count != 1 else ''}"


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    """Columns aligned: words to the left, numbers to the right."""
    widths = [max(len(row[column]) for row in (head, *rows)) for column in range(len(head))]
    is_number = [column > 0 and any(row[column][:1].isdigit() for row in rows) for column in range(len(head))]
    lines = []
    for row in (head, *rows):
        cells = [
            cell.rjust(w) if number else cell.ljust(w) for cell, w, number in zip(row, widths, is_number, strict=True)
        ]
        lines.append("  ".join(cells).rstrip())
    return lines
