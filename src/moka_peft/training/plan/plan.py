"""Plan: what a recipe needs of each GPU, from its model's shapes on the meta device."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from peft import PeftModel

from moka_peft.training.plan.architecture import adapted, base_on
from moka_peft.training.plan.media import media_of, segment_seconds
from moka_peft.training.plan.memory import STRATEGIES, Held, Part, count_held, count_parts
from moka_peft.training.plan.samples import SampleLength, sample_lengths
from moka_peft.training.plan.step import Activations, Batch, count_activations
from moka_peft.training.recipe import Recipe

RUNTIME = 2**30
"""Bytes for what torch does not allocate for tensors: the CUDA context, kernels' workspaces, gaps. An estimate."""


@dataclass(frozen=True)
class Plan:
    """What a recipe needs. heaviest: the sample of the source whose micro-batch holds most, `activations`.

    towers_run: whether what encoders hold is in them. tokens_per_step: over all GPUs.
    """

    parts: dict[str, Part]
    samples: list[SampleLength]
    heaviest: SampleLength
    rows: int
    row_length: int
    held: Held
    activations: Activations
    checkpointing: bool
    towers_run: bool
    gpus: int
    strategy: str
    accumulation: int
    samples_per_step: int
    tokens_per_step: int

    @property
    def parameters(self) -> int:
        return sum(part.parameters for part in self.parts.values())

    @property
    def trained(self) -> int:
        return sum(part.trained for part in self.parts.values())

    @property
    def bytes_per_gpu(self) -> int:
        return self.held.total + self.activations.peak + RUNTIME


def make_plan(
    recipe: Recipe, *, gpus: int = 1, strategy: str = "ddp", tokens: int | None = None, base: Any = None
) -> Plan:
    """The plan of a recipe that was read with `without_files`. tokens: of a sample, media and text. base: the model on
    the meta device where it is not the recipe's own.

    Raises ValueError for models, media, optimizers and strategies that are unknown here.
    """
    if strategy not in STRATEGIES or gpus < 1:
        raise ValueError(
            f"`strategy` and `gpus` are wrong: expected one of {', '.join(STRATEGIES)} and 1 or more, got {strategy} "
            f"and {gpus}. Change them."
        )
    base = base_on("meta", recipe.model.model_dump()) if base is None else base
    samples = sample_lengths(recipe.data, recipe.model, base, tokens)
    model = adapted(base, recipe.adapter.model_dump(), recipe.trained_parts())
    training = recipe.training
    held = count_held(
        model, optimizer=training.optimizer, gpus=gpus, strategy=strategy, half=training.bf16 or training.fp16
    )
    heaviest, batch, activations = _heaviest(model, recipe, samples)
    return Plan(
        parts=count_parts(model),
        samples=samples,
        heaviest=heaviest,
        rows=batch.rows,
        row_length=batch.length,
        held=held,
        activations=activations,
        checkpointing=training.gradient_checkpointing,
        towers_run=hasattr(base, "embed_media") or not any(sample.media for sample in samples),
        gpus=gpus,
        strategy=strategy,
        accumulation=training.gradient_accumulation,
        samples_per_step=training.batch_size * training.gradient_accumulation * gpus,
        tokens_per_step=_tokens(recipe, samples) * training.gradient_accumulation * gpus,
    )


def _heaviest(
    model: PeftModel, recipe: Recipe, samples: Sequence[SampleLength]
) -> tuple[SampleLength, Batch, Activations]:
    """The sample whose micro-batch holds most at once, that batch, and what it holds.

    Length alone does not decide: a source of fewer tokens may have more frames to encode.
    """
    base = model.get_base_model()
    batches = [(sample, batch_of(base, recipe, sample)) for sample in _candidates(samples)]
    counted = [(sample, batch, activations_of(model, recipe, batch)) for sample, batch in batches]
    return max(counted, key=lambda found: found[2].peak)


def _candidates(samples: Sequence[SampleLength]) -> list[SampleLength]:
    """Those than which no other is as long and has as many media; each one costs seconds to count."""
    kept: list[SampleLength] = []
    for sample in sorted(samples, key=lambda sample: (sample.total, sum(sample.units.values())), reverse=True):
        if not any(all(other.units.get(kind, 0) >= n for kind, n in sample.units.items()) for other in kept):
            kept.append(sample)
    return kept


def activations_of(model: PeftModel, recipe: Recipe, batch: Batch) -> Activations:
    """What a micro-batch of the recipe holds in `model`."""
    training = recipe.training
    low = "bfloat16" if training.bf16 else "float16" if training.fp16 else None
    return count_activations(model, batch, checkpointing=training.gradient_checkpointing, autocast=low)


def batch_of(base: Any, recipe: Recipe, sample: SampleLength) -> Batch:
    """A micro-batch of samples as long as `sample`, with the media that a composite encodes for it."""
    training, count = recipe.training, recipe.training.batch_size
    total = min(sample.total, training.max_length or sample.total)
    rows, length, tokens = count, total, dict(sample.media)
    if training.packing:
        length = min(training.max_length or count * total, count * total)
        rows = math.ceil(count * total / length)
        tokens = {kind: count * number // rows for kind, number in sample.media.items()}
    media = {}
    if hasattr(base, "embed_media"):
        seconds = segment_seconds(base.config, _chosen_seconds(recipe)) if sample.units.get("audio") else 0.0
        for kind, units in sample.units.items():
            media[kind] = media_of(kind, count * units, base.config, seconds, base.device, base.dtype)
    return Batch(rows, length, media, tokens, masked=rows > 1 or (training.packing and count > 1))


def _chosen_seconds(recipe: Recipe) -> float | None:
    return recipe.model.audio.segment_seconds if recipe.model.audio else 2.0  # tiny-avt's


def _tokens(recipe: Recipe, samples: list[SampleLength]) -> int:
    """Tokens of a micro-batch, by the mean of the sources."""
    limit = recipe.training.max_length or math.inf
    mean = sum(min(sample.total, limit) for sample in samples) / len(samples)
    return round(recipe.training.batch_size * mean)
