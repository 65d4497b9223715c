"""Partial-modality inference: what a model can do when only some modalities' tokens of the prompt pass the adapter.

MokA, arXiv 2506.05191, figure 1: of LoRA's adapted models those whose text alone is adapted are almost as good as those
whose tokens all are, so the text has taken the adapter over.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure
from torch import nn

from moka_peft.analysis.adapted_layers import (
    active_adapter,
    adapted_layers,
    check_unmerged,
    describe_adapter,
    modalities_of,
    routing_of_forwards,
)
from moka_peft.analysis.passage import Passage
from moka_peft.data import Collator, Sample
from moka_peft.training.answers import generate_answers
from moka_peft.training.metrics import SHARES, score_answers, value_of


@contextmanager
def adapting_only(
    model: nn.Module, processor: Any, modalities: Sequence[str], *, generated: bool = True
) -> Iterator[None]:
    """Inside, the adapter works at prompt tokens of `modalities` alone; at the others a layer gives its base's output.

    Tokens that `generate` has chosen pass as usual, unless `generated` is False. Elsewhere a forward of one token a row
    that continues a cache is such a step, and all other tokens are prompt. A media token of MokA that passes still
    attends to its instruction, whether that passes or not. processor: the model's, or a RoutingSpec.
    Raises ValueError on a modality that the adapter does not know, or where the adapter is merged.
    """
    adapter, layers = active_adapter(model), adapted_layers(model)
    for name, layer in layers.items():
        check_unmerged(name, layer)
    with ExitStack() as stack:
        channel = stack.enter_context(routing_of_forwards(model, processor))
        chosen = _numbers(modalities_of(channel, adapter), modalities)
        passage = Passage(channel, adapter, chosen, generated)
        for root in channel.models:
            handle = root.register_forward_pre_hook(passage.open, with_kwargs=True)
            stack.callback(handle.remove)
        for name, layer in layers.items():
            handle = layer.register_forward_hook(partial(passage.choose, name), with_kwargs=True)
            stack.callback(handle.remove)
        yield


def _numbers(known: Sequence[str], modalities: Sequence[str]) -> list[int]:
    if isinstance(modalities, str) or any(name not in known for name in modalities):
        raise ValueError(f"`modalities`: expected some of {', '.join(known)} in a list, got {modalities!r}.")
    return [known.index(name) for name in modalities]


def measure_partial(
    model: Any,
    processor: Any,
    samples: Sequence[Sample],
    *,
    batch_size: int = 64,
    max_new_tokens: int = 16,
    metric: str = "exact_match",
    collator: Collator | None = None,
) -> dict[str, Any]:
    """Scores the answers with the adapter at the tokens of all modalities, of each alone, of all but each, and of none.

    Parts that trained beside the adapter, such as projectors, stay in all of them. A row's `agreement` is the share of
    samples that it answers as the first row, all, does. Gives plain JSON data.
    """
    collate = (collator or Collator(processor)).collate_prompts
    limits = {"batch_size": batch_size, "max_new_tokens": max_new_tokens}
    with routing_of_forwards(model, processor) as channel:
        modalities = modalities_of(channel, active_adapter(model))
    rows: list[dict[str, Any]] = []
    usual: list[str] = []
    for name, chosen in choices(modalities).items():
        with adapting_only(model, processor, chosen, generated=bool(chosen)):
            answers = generate_answers(model, processor, collate, samples, **limits)
        usual = usual or answers
        same = sum(a == b for a, b in zip(answers, usual, strict=True))
        row = {"name": name, "adapted": chosen, "generated_adapted": bool(chosen)}
        rows.append(row | {"scores": score_answers(samples, answers, metric), "agreement": same / max(len(samples), 1)})
    told = {"analysis": "partial modality", "adapter": describe_adapter(model), "modalities": list(modalities)}
    return told | {"samples": len(samples), "metric": metric, **limits, "rows": rows}


def choices(modalities: Sequence[str]) -> dict[str, list[str]]:
    """Name of a row -> the modalities whose tokens pass the adapter in it; of two that are the same, the first."""
    named = {"all": list(modalities)}
    named |= {f"only {m}": [m] for m in modalities}
    named |= {f"without {m}": [other for other in modalities if other != m] for m in modalities}
    named["none"] = []
    seen: dict[tuple[str, ...], str] = {}
    for name, chosen in named.items():
        seen.setdefault(tuple(chosen), name)
    return {name: named[name] for name in seen.values()}


def draw_partial(result: dict[str, Any], path: Path) -> None:
    """Draws a bar with its interval for each choice of modalities; one panel for all questions and one per group."""
    rows = result["rows"]
    groups = list(rows[0]["scores"])
    figure = Figure(figsize=(1.5 + 2.3 * len(groups), 1.2 + 0.34 * len(rows)), layout="constrained")
    panels = figure.subplots(1, len(groups), sharey=True, squeeze=False)[0]
    for axes, group in zip(panels, groups, strict=True):
        scores = [row["scores"][group] for row in rows]
        values = [value_of(score) for score in scores]
        around = [[v - s["interval"][0] for v, s in zip(values, scores, strict=True)]]
        around += [[s["interval"][1] - v for v, s in zip(values, scores, strict=True)]]
        axes.barh(range(len(rows)), values, xerr=around, color=[_colour(row) for row in rows], ecolor="0.3", capsize=2)
        axes.axvline(values[0], color="0.5", linewidth=0.8, linestyle=":")
        axes.set(title=f"{group} ({scores[0]['total']})", xlabel=result["metric"].replace("_", " "))
        if result["metric"] in SHARES:
            axes.set_xlim(0, 1)
    panels[0].set_yticks(range(len(rows)), [row["name"] for row in rows])
    panels[0].invert_yaxis()
    figure.suptitle("tokens of the prompt that pass the adapter")
    figure.savefig(path, dpi=120)


def _colour(row: dict[str, Any]) -> str:
    kind = row["name"].split()[0]
    return {"all": "tab:blue", "only": "tab:orange", "without": "tab:green"}.get(kind, "0.7")
