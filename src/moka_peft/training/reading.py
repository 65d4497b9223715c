"""What a run reads: its samples, the collator that makes batches of them, and the plan of which come when."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml

from moka_peft.data import Collator, MediaOptions, Sample, SkippingCollator, load_samples
from moka_peft.data.epochs import EpochPlan
from moka_peft.data.mixing import MixedSamples, block_of, part_sizes_of, shard_sizes_of
from moka_peft.data.prepared import PreparedCollator, prepare
from moka_peft.data.token_index import read_index
from moka_peft.training.folder import RECIPE
from moka_peft.training.processes import is_sharded, world_size
from moka_peft.training.recipe import Data, Recipe
from moka_peft.training.recipe_data import Media, Source


def open_source(source: Source | Sequence[Source] | None, data: Data | None = None) -> Sequence[Sample]:
    """The samples of one part of a recipe's data, read as `data` says; none where the recipe has no such part."""
    if source is None:
        return []
    if not isinstance(source, Source):
        return MixedSamples([open_source(one, data) for one in source])
    settings = source.model_dump(exclude_none=True, exclude={"index"})
    if data is None:
        return load_samples(settings)
    return load_samples(settings, media=media_options(data), on_bad_sample=data.on_bad_sample)


def media_options(data: Data) -> MediaOptions:
    """How a recipe decodes media."""
    return MediaOptions(**data.media.model_dump())


def media_of(folder: Path) -> MediaOptions:
    """How the run in a folder decoded media, which its model is to be asked with; the defaults where no recipe says."""
    try:
        written = yaml.safe_load((folder / RECIPE).read_text(encoding="utf-8"))
    except FileNotFoundError:
        return MediaOptions()
    return MediaOptions(**Media.model_validate((written.get("data") or {}).get("media") or {}).model_dump())


def open_collator(recipe: Recipe, processor: Any) -> Collator:
    """The collator that a recipe's training samples are checked with: they must fit, but are not packed."""
    return Collator(processor, media=media_options(recipe.data), max_length=recipe.training.max_length)


def held_out_collator(recipe: Recipe, processor: Any) -> Collator:
    """The collator of the held-out samples, which neither packs nor limits."""
    collator = Collator(processor, media=media_options(recipe.data))
    if world_size() > 1 and is_sharded():
        collator.kinds = kinds_of_encoders(collator)
    return collator


def training_collator(recipe: Recipe, processor: Any, model_config: Any, skipped: Path) -> Collator | SkippingCollator:
    """The collator of the training batches; skips bad samples where the recipe says so, into the folder `skipped`."""
    collator = Collator(
        processor,
        media=media_options(recipe.data),
        packing=recipe.training.packing,
        max_length=recipe.training.max_length,
        model_config=model_config,
    )
    named = recipe.adapter.modules_to_save or recipe.adapter.target_modules  # may be, or reach into, an encoder
    if world_size() > 1 and (is_sharded() or named or recipe.trained_parts()):
        collator.kinds = kinds_of_encoders(collator)
    return SkippingCollator(collator, skipped) if recipe.data.on_bad_sample == "skip" else collator


def kinds_of_encoders(collator: Collator) -> tuple[str, ...]:
    """One kind of media for each encoder: with several processes, all must run in every step, or some would wait.

    Videos pass through the encoder of images where there are both.
    """
    kinds = list(collator.placeholders)
    return tuple(kind for kind in kinds if kind != "video" or "image" not in kinds)


def through_cache(
    recipe: Recipe, samples: Sequence[Sample], collator: Any, *, prompts: bool = False
) -> tuple[Sequence[Sample], Any]:
    """The samples and their collator, or, where the recipe has a cache, the prepared ones and theirs.

    prompts: whether the samples are also asked, not only trained on.
    """
    if recipe.data.cache is None or not len(samples):
        return samples, collator
    folder = Path(recipe.data.cache)
    return prepare(samples, collator, folder, prompts=prompts), PreparedCollator(collator)


def plan_batches(recipe: Recipe, samples: Sequence[Sample], collator: Collator | SkippingCollator) -> EpochPlan:
    """Which samples come in which batch of which process. Packed rows are planned with room for the blank media that
    `collator` may add. Raises ValueError where an index does not fit the data."""
    settings, index, lengths, capacity = recipe.training, recipe.data.lengths_file(), None, None
    if index is not None:
        media = media_options(recipe.data)
        lengths = read_index(index, samples, collator.processor, media, settings.max_length)
    if settings.packing and settings.max_length:
        blank = sum(collator.count_tokens([collator.blank(kind) for kind in collator.kinds]))
        capacity = max(settings.max_length - blank, 1)
    return EpochPlan(
        tuple(shard_sizes_of(samples)),
        settings.batch_size,
        world_size(),
        recipe.seed,
        block_of(samples),
        lengths,
        capacity,
        part_sizes_of(samples) if recipe.data.order == "in_order" else (),
    )
