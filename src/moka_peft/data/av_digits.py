"""The built-in dataset `av_digits`: real handwritten digits, synthesised notes, questions about either or both."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from moka_peft.data.av_questions import GROUPS, KINDS
from moka_peft.data.av_scenes import Argument, Scene
from moka_peft.data.digit_strips import SPLITS, draw_strip, images_of
from moka_peft.data.indexed import IndexedSamples
from moka_peft.data.notes import SAMPLE_RATE_HZ, play
from moka_peft.data.samples import Sample


@dataclass(frozen=True)
class Facts:
    """What a sample is made from: the scene, the kind of question with its argument, the images shown."""

    scene: Scene
    kind: str
    argument: Argument
    images: tuple[int, ...]


class AvDigits(IndexedSamples):
    """Strips of four handwritten digits with one to four notes, and a question of MUSIC-AVQA's groups.

    Sample i depends on (seed, split, groups, i) alone and is made when it is read. Groups alternate, kinds are
    drawn. Splits "align", "train" and "test" never share an image of a digit. Raises ValueError for unknown
    splits and groups, ImportError without scikit-learn.
    """

    def __init__(self, split: str = "train", size: int = 6400, seed: int = 0, groups: Sequence[str] = GROUPS):
        images_of(split)
        if size < 1:
            raise ValueError(f"`size` is too small: expected at least 1, got {size}.")
        if not groups or not set(groups) <= set(GROUPS):
            raise ValueError(f"`groups` is wrong: expected some of {', '.join(GROUPS)}, got {groups}.")
        self.split, self.size, self.seed, self.groups = split, size, seed, tuple(groups)

    def __len__(self) -> int:
        return self.size

    def sample(self, index: int) -> Sample:
        rng = self._rng(index)
        facts = self._draw_facts(index, rng)
        kind = KINDS[facts.kind]
        content = [
            {"type": "image", "image": draw_strip(np.array(facts.images), rng)},
            {"type": "audio", "audio": play(facts.scene.notes, rng), "sample_rate_hz": SAMPLE_RATE_HZ},
            {"type": "text", "text": kind.ask(facts.argument, rng)},
        ]
        answer = kind.answer(facts.scene, facts.argument)
        messages = [{"role": "user", "content": content}, {"role": "assistant", "content": answer}]
        return Sample(f"av_digits-{self.split}-{self.seed}-{index}", messages, kind.group, facts.kind)

    def facts(self, index: int) -> Facts:
        """What sample `index` is made from, without drawing or playing it."""
        index = self.counted(index)
        return self._draw_facts(index, self._rng(index))

    def _rng(self, index: int) -> np.random.Generator:
        return np.random.default_rng((self.seed, SPLITS.index(self.split), index))

    def _draw_facts(self, index: int, rng: np.random.Generator) -> Facts:
        group = self.groups[index % len(self.groups)]
        kinds = [name for name, kind in KINDS.items() if kind.group == group]
        name = kinds[rng.integers(len(kinds))]
        scene, argument = KINDS[name].draw(rng)
        pool = images_of(self.split)
        images = tuple(int(rng.choice(pool[digit])) for digit in scene.digits)
        return Facts(scene, name, argument, images)
