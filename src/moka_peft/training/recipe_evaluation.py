"""The evaluation section of a recipe: how held-out questions are answered, and which benchmarks the adapter is for."""

from string import Formatter
from typing import Annotated, Literal

from pydantic import AfterValidator, BeforeValidator, PositiveInt

from moka_peft.training.recipe_model import Section

Metric = Literal["exact_match", "contains", "token_f1", "wer"]
FIELDS = ("question", "choices")


def template(text: str) -> str:
    """Checks that a prompt has a place for the question, and for nothing that no benchmark has."""
    try:
        fields = [field for _, *field in Formatter().parse(text) if field[0] is not None]
    except ValueError as error:
        raise ValueError(f"expected a text with {{question}}, got {text!r} ({error})") from error
    found = {"" if how or conversion else name for name, how, conversion in fields}
    if "question" not in found or found - set(FIELDS):
        raise ValueError(f"expected a text with {{question}}, and at most {{choices}} beside it, got {text!r}")
    return text


class Asked(Section):
    """How a benchmark is asked: where its files are, which part of it, in which words, and how long answers may be.

    folder: `data/NAME` where it is left out. split, task, part: those of docs/evaluation.md. prompt: with {question},
    and a tag such as `<image>` for each medium.
    """

    folder: str | None = None
    split: str | None = None
    task: str | None = None
    part: str | int | None = None
    prompt: Annotated[str, AfterValidator(template)] | None = None
    max_new_tokens: PositiveInt | None = None


def _chosen(value: object) -> object:
    """A name with nothing behind it stands for the benchmark as it is."""
    return {} if value is None else value


Choice = Annotated[Asked | None, BeforeValidator(_chosen)]


class Benchmarks(Section):
    """The benchmarks that `moka eval` runs a recipe's adapter on."""

    music_avqa: Choice = None
    ave: Choice = None
    mme: Choice = None
    mmbench: Choice = None
    pope: Choice = None
    seed_bench: Choice = None
    mmau: Choice = None
    air_bench: Choice = None

    def chosen(self) -> dict[str, Asked]:
        """The settings of those that are named."""
        return {name: value for name in type(self).model_fields if (value := getattr(self, name)) is not None}


class Evaluation(Section):
    """How the held-out questions are answered: greedy, in batches, every `steps` if that is set; and compared.

    before: also before training, which says nothing of an adapter that begins at zero. benchmarks: for `moka eval`,
    without effect on a training run.
    """

    metric: Metric = "exact_match"
    batch_size: PositiveInt = 64
    max_new_tokens: PositiveInt = 16
    steps: PositiveInt | None = None
    before: bool = True
    benchmarks: Benchmarks | None = None
