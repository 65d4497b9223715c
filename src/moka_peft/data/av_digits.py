"""The built-in dataset `av_digits`: real handwritten digits, synthesised notes, questions about either or both."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from moka_peft.data.av_questions import GROUPS, KINDS, kinds_by_group
from moka_peft.data.av_scenes import Argument, Scene
from moka_peft.data.av_shifts import IMAGES, shift_image, shift_sound
from moka_peft.data.av_shortcuts import draw_told, group_of, state_answer
from moka_peft.data.digit_strips import SPLITS, draw_strip, images_of
from moka_peft.data.indexed import IndexedSamples
from moka_peft.data.notes import SAMPLE_RATE_HZ, SOUNDS, play
from moka_peft.data.samples import Sample

GROUP_OF = {"image": "Visual", "audio": "Audio"}
"""The group of questions that one medium alone answers."""

MEDIA = ("both", *GROUP_OF)
_IMAGE, _SOUND, _TEXT = 1, 2, 3  # whose random numbers


@dataclass(frozen=True)
class Facts:
    """What a sample is made from: the scene, the kind of question with its argument, the images shown, and the answer
    that the text states, None where it states none."""

    scene: Scene
    kind: str
    argument: Argument
    images: tuple[int, ...]
    told: str | None = None


class AvDigits(IndexedSamples):
    """Strips of four handwritten digits with one to four notes, and a question of MUSIC-AVQA's groups.

    Sample i depends on (seed, split, groups, kinds, i) alone and is made when it is read. Groups alternate, kinds are
    drawn. Splits "align", "train" and "test" never share an image of a digit. The other settings make it harder, and
    change nothing but what they name; docs/comparison_suite.md shows them:
    kinds: which kinds of question are asked; None: all of the groups. images, sounds: how the media look and sound,
    see `IMAGES` and `SOUNDS`. media: "both", or the only one attached, for groups about it alone. shortcuts: the share
    of questions whose text states an answer; misleading: the share of these that state a wrong one.
    Raises ValueError for unknown or contradictory settings, ImportError without scikit-learn.
    """

    def __init__(
        self,
        split: str = "train",
        size: int = 6400,
        seed: int = 0,
        groups: Sequence[str] = GROUPS,
        *,
        kinds: Sequence[str] | None = None,
        images: str = "plain",
        sounds: str = "plain",
        media: str = "both",
        shortcuts: float = 0.0,
        misleading: float = 0.0,
    ):
        images_of(split)
        if size < 1:
            raise ValueError(f"`size` is too small: expected at least 1, got {size}.")
        if not groups or not set(groups) <= set(GROUPS):
            raise ValueError(f"`groups` is wrong: expected some of {', '.join(GROUPS)}, got {groups}.")
        for name, value, known in (("images", images, IMAGES), ("sounds", sounds, SOUNDS), ("media", media, MEDIA)):
            if value not in known:
                raise ValueError(f"`{name}` is unknown: expected one of {', '.join(known)}, got {value}. Choose one.")
        for name, share in (("shortcuts", shortcuts), ("misleading", misleading)):
            if not 0 <= share <= 1:
                raise ValueError(f"`{name}` is no share: expected 0 to 1, got {share}. Correct it.")
        if misleading and not shortcuts:
            raise ValueError(
                f"`misleading` is {misleading}, but no text states an answer: expected `shortcuts` > 0. Set it."
            )
        self.split, self.size, self.seed, self.groups = split, size, seed, tuple(groups)
        self.kinds = kinds_by_group(self.groups, kinds)
        self.images, self.sounds, self.media = images, sounds, media
        self.shortcuts, self.misleading = shortcuts, misleading
        if media != "both" and (foreign := sorted(set(groups) - {GROUP_OF[media]})):
            raise ValueError(
                f"`media` is {media}, but questions of {', '.join(foreign)} are not about it alone: expected `groups` "
                f"to be [{GROUP_OF[media]}]. Change one of them."
            )

    def __len__(self) -> int:
        return self.size

    def sample(self, index: int) -> Sample:
        rng = self._rng(index)
        facts = self._draw_facts(index, rng)
        kind = KINDS[facts.kind]
        image = shift_image(draw_strip(np.array(facts.images), rng), self.images, self._rng(index, _IMAGE))
        clip = shift_sound(play(facts.scene.notes, rng, self.sounds), self.sounds, self._rng(index, _SOUND))
        content = [
            {"type": "image", "image": image},
            {"type": "audio", "audio": clip, "sample_rate_hz": SAMPLE_RATE_HZ},
        ]
        content = [part for part in content if self.media in ("both", part["type"])]
        content.append({"type": "text", "text": state_answer(facts.told) + kind.ask(facts.argument, rng)})
        answer = kind.answer(facts.scene, facts.argument)
        messages = [{"role": "user", "content": content}, {"role": "assistant", "content": answer}]
        name = f"av_digits-{self.split}-{self.seed}-{index}"
        return Sample(name, messages, group_of(kind.group, facts.told, answer), facts.kind)

    def facts(self, index: int) -> Facts:
        """What sample `index` is made from, without drawing or playing it."""
        index = self.counted(index)
        return self._draw_facts(index, self._rng(index))

    def _rng(self, index: int, *purpose: int) -> np.random.Generator:
        """The random numbers of a sample; those of each setting are its own, so that no other one changes."""
        return np.random.default_rng((self.seed, SPLITS.index(self.split), index, *purpose))

    def _draw_facts(self, index: int, rng: np.random.Generator) -> Facts:
        kinds = self.kinds[self.groups[index % len(self.groups)]]
        name = kinds[rng.integers(len(kinds))]
        scene, argument = KINDS[name].draw(rng)
        pool = images_of(self.split)
        images = tuple(int(rng.choice(pool[digit])) for digit in scene.digits)
        answer = KINDS[name].answer(scene, argument)
        told = draw_told(answer, self.shortcuts, self.misleading, self._rng(index, _TEXT))
        return Facts(scene, name, argument, images, told)
