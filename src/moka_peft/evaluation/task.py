"""One benchmark as it is put to a model: its questions, in which words, and in which batches."""

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from moka_peft.data import Sample
from moka_peft.data.media.options import DEFAULTS, MediaOptions
from moka_peft.evaluation.benchmark import Benchmark
from moka_peft.evaluation.question import Question, ask
from moka_peft.evaluation.record import PROTOCOLS, Record


@dataclass(frozen=True)
class Task:
    """A benchmark's questions and how they are asked.

    questions: all of them. template: of the prompt. limit: how many of the first ones are asked; None: all. options:
    what chose the questions, as `Benchmark.questions` took it.
    """

    name: str
    benchmark: Benchmark
    questions: Sequence[Question]
    template: str
    batch_size: int
    max_new_tokens: int
    limit: int | None = None
    options: Mapping[str, Any] = field(default_factory=dict)

    @cached_property
    def asked(self) -> Sequence[Question]:
        """The questions that are asked."""
        return self.questions[: self.limit]

    @cached_property
    def batches(self) -> list[Sequence[Question]]:
        """The questions of each batch: always the same ones together, since a row's neighbours set its padding."""
        return [self.asked[start : start + self.batch_size] for start in range(0, len(self.asked), self.batch_size)]

    @property
    def partial(self) -> str | None:
        """Why the records are not those of all questions, if they are not."""
        few, many = len(self.asked), len(self.questions)
        return f"the first {few:,} of {many:,} questions" if few < many else None

    def sample(self, question: Question, media: MediaOptions = DEFAULTS) -> Sample:
        """The conversation that asks a question; see `ask`."""
        try:
            prompt = self.benchmark.prompt(question, self.template)
        except KeyError as error:
            raise ValueError(
                f"`prompt` of {self.name} names {error}, which its questions do not have. Remove it."
            ) from error
        return ask(question, prompt, media)

    def check(self) -> None:
        """Raises ValueError or FileNotFoundError, naming file and row, for a question that cannot be asked."""
        for question in self.asked:
            self.sample(question)

    def settings(self) -> dict[str, Any]:
        """What decides the records, as plain data."""
        return {
            "benchmark": self.name,
            "options": dict(self.options),
            "prompt": self.template,
            "batch_size": self.batch_size,
            "max_new_tokens": self.max_new_tokens,
            "limit": self.limit if self.partial else None,
            "questions": len(self.questions),
            "questions_sha256": self._digest(),
        }

    def _digest(self) -> str:
        """Of all questions; a file counts by its name alone, so that the folder may move."""
        told = [
            [one.id, one.text, one.reference, dict(one.facts)]
            + [[_name(medium) for medium in media] for media in (one.images, one.videos, one.audios)]
            for one in self.questions
        ]
        return hashlib.sha256(json.dumps(told, sort_keys=True).encode()).hexdigest()

    def row(self, question: Question, prediction: str) -> dict[str, Any]:
        """The line of a file of records for an answered question."""
        record = Record(question.id, question.text, question.reference, prediction, question.facts, question.where)
        judged = {protocol: self.benchmark.parse(record, protocol) for protocol in PROTOCOLS}
        told: dict[str, Any] = {
            "id": record.id,
            "question": record.question,
            "reference": record.reference,
            "prediction": prediction,
        }
        told["parsed"] = {protocol: one.parsed for protocol, one in judged.items()}
        told["right"] = {protocol: one.right for protocol, one in judged.items()}
        return told | dict(record.facts)


def _name(medium: str | bytes) -> str:
    return Path(medium).name if isinstance(medium, str) else hashlib.sha256(medium).hexdigest()
