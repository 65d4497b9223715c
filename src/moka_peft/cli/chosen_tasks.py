"""Which benchmarks `moka eval` runs on a target and how: its recipe's section, and the command line over it."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

if TYPE_CHECKING:
    from moka_peft.evaluation import Question
    from moka_peft.evaluation.target import Target
    from moka_peft.evaluation.task import Task
    from moka_peft.training.recipe_evaluation import Asked

OPTIONS = ("split", "task", "part")


@dataclass
class Choice:
    """The command line's words on benchmarks, checked.

    names: none means those of the target's recipe. settings: a benchmark's name -> keys of its section. data: the
    folder of the benchmarks' folders. tiny: made-up files in place of theirs.
    """

    names: Sequence[str]
    settings: Mapping[str, Mapping[str, Any]]
    data: Path = Path("data")
    limit: int | None = None
    batch_size: int | None = None
    max_new_tokens: int | None = None
    tiny: bool = False
    _read: dict[str, "Sequence[Question]"] = field(default_factory=dict, init=False)

    def tasks(self, target: "Target") -> "list[Task]":
        """The target's tasks, all questions read. Raises where a name, an option or a file is wrong."""
        from moka_peft.evaluation import BENCHMARKS

        names = self.names or list(target.benchmarks)
        if not names:
            raise typer.BadParameter(
                f"are missing: {target.name} has no recipe with `evaluation.benchmarks`. Name some of "
                f"{', '.join(BENCHMARKS)}.",
                param_hint="--benchmarks",
            )
        if unused := set(self.settings) - set(names):
            raise typer.BadParameter(
                f"{sorted(unused)[0]} is not run: expected some of {', '.join(names)}.", param_hint="--set"
            )
        return [self._task(name, target) for name in names]

    def _task(self, name: str, target: "Target") -> "Task":
        from moka_peft.evaluation import BENCHMARKS
        from moka_peft.evaluation.task import Task

        asked, benchmark = self._asked(name, target), BENCHMARKS[name]
        options = {key: value for key in OPTIONS if (value := getattr(asked, key)) is not None}
        try:
            benchmark.check_options(options)
        except ValueError as error:
            raise typer.BadParameter(str(error), param_hint=f"{name}") from error
        task = Task(
            name,
            benchmark,
            self._questions(name, asked.folder or self._folder(name, target, options), options),
            asked.prompt or benchmark.template,
            self.batch_size or target.batch_size,
            self.max_new_tokens or asked.max_new_tokens or benchmark.max_new_tokens,
            self.limit,
            options,
        )
        task.check()
        return task

    def _asked(self, name: str, target: "Target") -> "Asked":
        """The recipe's section with the command line over it; made-up files are in no folder of the recipe's."""
        from moka_peft.training.recipe_evaluation import Asked

        section = target.benchmarks.get(name, Asked())
        made_up = {"folder": None} if self.tiny else {}
        return section.model_copy(update=made_up | dict(self.settings.get(name, {})))

    def _folder(self, name: str, target: "Target", options: Mapping[str, Any]) -> Path:
        if not self.tiny:
            return self.data / name
        from moka_peft.evaluation.generated import tiny_benchmark

        return tiny_benchmark(name, target.beside_tiny, **options)

    def _questions(self, name: str, folder: str | Path, options: Mapping[str, Any]) -> "Sequence[Question]":
        """The benchmark's questions, read once for all targets."""
        from moka_peft.evaluation import BENCHMARKS

        key = f"{name} {folder} {sorted(options.items())}"
        if key not in self._read:
            self._read[key] = BENCHMARKS[name].questions(folder, **options)
        return self._read[key]


def names_of(text: str | None) -> list[str]:
    """The names in a list such as `mme,pope`. Raises typer.BadParameter for an unknown one."""
    from moka_peft.evaluation import BENCHMARKS

    names = list(dict.fromkeys(name.strip() for name in text.split(","))) if text is not None else []
    if unknown := [name for name in names if name not in BENCHMARKS]:
        raise typer.BadParameter(
            f"knows no {', '.join(map(repr, unknown))}: expected some of {', '.join(BENCHMARKS)}.",
            param_hint="--benchmarks",
        )
    return names


def settings_of(given: Sequence[str]) -> dict[str, dict[str, Any]]:
    """The sections in words such as `mme.folder=PATH`. Raises RecipeError for those that no recipe could have."""
    from moka_peft.training.recipe_file import read_benchmarks

    return {name: asked.model_dump(exclude_unset=True) for name, asked in read_benchmarks(given).items()}
