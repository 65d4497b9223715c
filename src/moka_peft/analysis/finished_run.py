"""A finished run opened for analysis: its model, and held-out samples read as it read them."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import yaml

from moka_peft.data import BadSample, Collator, Sample, load_samples
from moka_peft.training import load_adapted, open_source
from moka_peft.training.folder import RECIPE
from moka_peft.training.reading import media_of
from moka_peft.training.recipe import Evaluation
from moka_peft.training.recipe_data import Data

SEED = 0  # of the choice of samples


@dataclass
class FinishedRun:
    """What an analysis needs of the run in `folder`, or of a bare adapter's folder.

    `data`: a file of samples in place of the recipe's held-out ones.
    """

    folder: Path
    data: Path | None = None

    def __post_init__(self) -> None:
        self.model, self.processor = load_adapted(self.folder)
        recipe = self.folder / RECIPE
        written: dict[str, Any] = yaml.safe_load(recipe.read_text(encoding="utf-8")) if recipe.is_file() else {}
        self._data = written.get("data")
        self.evaluation = Evaluation.model_validate(written.get("evaluation") or {})
        self.collator = Collator(self.processor, media=media_of(self.folder))

    @cached_property
    def samples(self) -> Sequence[Sample | BadSample]:
        """All held-out samples. Raises ValueError where nothing names any."""
        if self.data is not None:
            return load_samples(self.data, media=self.collator.media)
        data = Data.model_validate(self._data) if self._data else None
        if data is None or data.eval is None:
            raise ValueError(
                f"`data.eval`: the run in {self.folder} has no held-out samples. Give a file of some: --data FILE."
            )
        return open_source(data.eval, data)

    def choose(self, count: int) -> list[Sample]:
        """`count` of the held-out samples, drawn at random and always the same ones; all where there are fewer."""
        places = range(len(self.samples))
        if len(places) > count:
            places = sorted(random.Random(SEED).sample(places, count))
        found = [self.samples[place] for place in places]
        return [sample for sample in found if isinstance(sample, Sample)]

    def sample(self, place: int) -> Sample:
        """One held-out sample. Raises ValueError where there is none, or it cannot be read."""
        if not 0 <= place < len(self.samples):
            raise ValueError(f"`question` {place} does not exist: there are {len(self.samples)} held-out samples.")
        found = self.samples[place]
        if isinstance(found, BadSample):
            raise ValueError(found.problem)
        return found
