"""A benchmark: four functions that load it, ask, read an answer and score, with what is known of it."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from moka_peft.evaluation.question import Question
from moka_peft.evaluation.record import Protocol, Record
from moka_peft.evaluation.score import Judged, Score


@dataclass(frozen=True)
class Benchmark:
    """How a benchmark is loaded, asked and scored.

    load(folder, **options) gives its questions; prompt(question, template) a question's text with a tag for each
    medium; parse(record, protocol) what a record's prediction says and whether that is right; score(records, judged,
    protocol) the number.
    title: as its authors write it. template: the prompt unless another is given, with {question} and, where there are
    any, {choices}. max_new_tokens: of an answer, where nothing else is asked for. options: names of load's options ->
    the values that each may have, the first by default. needs: facts that scoring needs -> the keys that files have
    them under. published: how many records the published set has, by group ("all": in all); fewer in a group that has
    some make a result partial. unit: of the score.
    """

    title: str
    load: Callable[..., Sequence[Question]]
    prompt: Callable[[Question, str], str]
    parse: Callable[[Record, Protocol], Judged]
    score: Callable[[Sequence[Record], Sequence[Judged], Protocol], Score]
    template: str
    max_new_tokens: int = 16
    options: Mapping[str, tuple[Any, ...]] = field(default_factory=dict)
    needs: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    published: Mapping[str, int] = field(default_factory=dict)
    unit: str = "%"

    def questions(self, folder: str | Path, **options: Any) -> Sequence[Question]:
        """The questions in the benchmark's folder. Raises ValueError for unknown options, for none at all and for an id
        that two of them have, FileNotFoundError for what is not in the folder."""
        self.check_options(options)
        questions = self.load(Path(folder).absolute(), **options)
        if not questions:
            chosen = "".join(f", {name} {value}" for name, value in options.items())
            raise ValueError(f"{self.title} in `{folder}`{chosen} has no questions: expected at least one. Correct it.")
        seen: dict[str, str] = {}
        for question in questions:
            if question.id in seen:
                raise ValueError(
                    f"{question.where}: its id {question.id} is that of {seen[question.id]}, too: expected one for "
                    "each question. Correct the row, or download the file again."
                )
            seen[question.id] = question.where
        return questions

    def check_options(self, options: Mapping[str, Any]) -> None:
        """Raises ValueError for an option that the benchmark does not have, or not with this value."""
        for name, value in options.items():
            allowed = self.options.get(name)
            if allowed is None or value not in allowed:
                known = ", ".join(self.options) or "no options"
                expected = f"one of {', '.join(map(str, allowed))}" if allowed else f"some of {known}"
                raise ValueError(f"`{name}` of {self.title} is wrong: expected {expected}, got {value}. Correct it.")
