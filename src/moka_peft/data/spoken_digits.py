"""The built-in dataset `spoken_digits`: handwritten digits, spoken digits, and questions in words about them."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from moka_peft.data.digit_questions import GROUPS, MEDIA_OF, WORDS, Digits, Question, draw_digits, draw_question
from moka_peft.data.digit_strips import SPLITS, draw_strip, images_of
from moka_peft.data.formants import SAMPLE_RATE_HZ
from moka_peft.data.indexed import IndexedSamples
from moka_peft.data.samples import Sample
from moka_peft.data.spoken_words import SpokenWords, say

TASKS = ("caption", "question")
OPENINGS = {"written": "This is an image:\n", "spoken": "This is a recording:\n"}


@dataclass(frozen=True)
class Facts:
    """What a sample is made from: the digits of each medium, the request, its answer, and the files used.

    `question` is None for a caption. `images` index scikit-learn's digits; `recordings` are names of files.
    """

    digits: dict[str, Digits]
    request: str
    answer: str
    question: Question | None
    images: tuple[int, ...]
    recordings: tuple[str, ...]


class SpokenDigits(IndexedSamples):
    """A strip of four handwritten digits, four spoken digits, or both, with a caption or a question.

    scenario: "avt" (both media), "vt" (written), "st" (spoken). task: "caption" names the digits of one medium, which
    comes alone; "question" asks, in turn, kinds that a language model can know from text and new ones. folder:
    recordings named as in the Free Spoken Digit Dataset, else the digits are synthesised. speakers: whose recordings
    are used, None for all. Sample i depends on (seed, split, scenario, task, i), folder and speakers alone. Splits
    "align", "train" and "test" share no image and no recording.
    Raises ValueError for unknown settings, FileNotFoundError for a folder without recordings, ImportError without
    scikit-learn.
    """

    def __init__(
        self,
        scenario: str = "avt",
        task: str = "question",
        split: str = "train",
        size: int = 6400,
        seed: int = 0,
        folder: str | Path | None = None,
        speakers: Sequence[str] | None = None,
    ):
        for name, value, known in (("scenario", scenario, tuple(MEDIA_OF)), ("task", task, TASKS)):
            if value not in known:
                raise ValueError(f"`{name}` is unknown: expected one of {', '.join(known)}, got {value}. Choose one.")
        if size < 1:
            raise ValueError(f"`size` is too small: expected at least 1, got {size}.")
        if folder is not None and scenario == "vt":
            raise ValueError(
                f"`folder` has no meaning for the scenario vt, which has no speech: got {folder}. Remove it."
            )
        if speakers is not None and scenario == "vt":
            raise ValueError(f"`speakers` has no meaning for the scenario vt: got {speakers}. Remove it.")
        self.scenario, self.task, self.split, self.size, self.seed = scenario, task, split, size, seed
        self.speakers = speakers
        self.media = MEDIA_OF[scenario]
        self.images = images_of(split) if "written" in self.media else {}
        self.words = SpokenWords(split, folder, speakers) if "spoken" in self.media else None

    def __len__(self) -> int:
        return self.size

    @property
    def origins(self) -> list[Path | str]:
        """What the samples are made from: the settings, and the recordings where there are any."""
        settings = repr((self.scenario, self.task, self.split, self.size, self.seed, self.speakers))
        names = sorted(name for names in self.words.names.values() for name in names) if self.words else []
        return [settings, *([self.words.folder / name for name in names] if self.words and self.words.folder else [])]

    def sample(self, index: int) -> Sample:
        rng = self._rng(index)
        facts = self._draw_facts(index, rng)
        content = [part for medium in facts.digits for part in self._show(medium, facts, rng)]
        content.append({"type": "text", "text": facts.request})
        messages = [{"role": "user", "content": content}, {"role": "assistant", "content": facts.answer}]
        group, kind = ("caption", None) if facts.question is None else (GROUPS[index % 2], facts.question.kind)
        name = f"spoken_digits-{self.scenario}-{self.task}-{self.split}-{self.seed}-{index}"
        return Sample(name, messages, group, kind)

    def facts(self, index: int) -> Facts:
        """What sample `index` is made from, without drawing or playing it."""
        index = self.counted(index)
        return self._draw_facts(index, self._rng(index))

    def _rng(self, index: int) -> np.random.Generator:
        numbers = (
            list(MEDIA_OF).index(self.scenario),
            TASKS.index(self.task),
            SPLITS.index(self.split),
        )
        return np.random.default_rng((self.seed, *numbers, index))

    def _draw_facts(self, index: int, rng: np.random.Generator) -> Facts:
        question = None
        if self.task == "question":
            question = draw_question(self.scenario, GROUPS[index % 2], rng)
            digits, request, answer = question.digits, question.text, question.answer
        else:
            medium = self.media[index % len(self.media)]
            digits = {medium: draw_digits(self.scenario, rng)[medium]}
            request, answer = caption(medium, digits[medium])
        images = tuple(int(rng.choice(self.images[digit])) for digit in digits.get("written", ()))
        names = self.words.names if self.words else {}
        recordings = tuple(str(rng.choice(names[digit])) for digit in digits.get("spoken", ()))
        return Facts(digits, request, answer, question, images, recordings)

    def _show(self, medium: str, facts: Facts, rng: np.random.Generator) -> list[dict[str, Any]]:
        """The parts of one medium: the words that open it, and itself."""
        if medium == "written" or self.words is None:
            part = {"type": "image", "image": draw_strip(np.array(facts.images), rng)}
        else:
            clip = say(self.words, facts.recordings, rng)
            part = {"type": "audio", "audio": clip, "sample_rate_hz": SAMPLE_RATE_HZ}
        return [{"type": "text", "text": OPENINGS[medium]}, part, {"type": "text", "text": "\n"}]


def caption(medium: str, digits: Digits) -> tuple[str, str]:
    """What asks for the digits of a medium ("written" or "spoken"), and what names them."""
    return f"Which digits are {medium}?", f"the {medium} digits are {' '.join(WORDS[digit] for digit in digits)}"
