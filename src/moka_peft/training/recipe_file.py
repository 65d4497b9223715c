"""Reading a recipe from YAML and writing it back; every mistake is reported at once, with its line."""

import copy
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml
from pydantic import ValidationError

from moka_peft.training.folder import write_whole
from moka_peft.training.recipe import Recipe, conflicts
from moka_peft.training.recipe_conflicts import missing_here
from moka_peft.training.recipe_evaluation import Asked, Benchmarks
from moka_peft.training.recipe_problems import Key, dotted, report


class RecipeError(ValueError):
    """Everything that is wrong with a recipe; `problems` holds one line for each."""

    def __init__(self, problems: Sequence[str]):
        super().__init__("\n".join(problems))
        self.problems = list(problems)


class RecipeLoader(yaml.SafeLoader):
    """YAML in which `1e-3` is a number, as in YAML 1.2 and Python (PyYAML reads a string)."""


RecipeLoader.add_implicit_resolver(
    "tag:yaml.org,2002:float",
    re.compile(r"^[-+]?[0-9][0-9_]*(\.[0-9]*)?[eE][-+]?[0-9]+$"),
    list("-+0123456789"),
)


def load_recipe(
    path: str | Path,
    overrides: Sequence[str] = (),
    *,
    to_train: bool = False,
    without_files: bool = False,
    tiny: bool = False,
) -> Recipe:
    """Reads a recipe, with `overrides` such as `training.learning_rate=1e-3` put over it.

    to_train: whether this machine must have all that the recipe asks for. without_files: whether its data and models
    may be missing here; paths then stay as they are written. tiny: gives the recipe at the size of a laptop, see
    `shrink_recipe`, which writes the models and media for it. Raises RecipeError with every unknown key, wrong type,
    value out of range, missing file and missing package together.
    """
    data, places = _read(Path(path))
    problems = _override(data, places, overrides)
    if tiny:
        _checked(data, places, problems, without_files=True)
        data = _shrunk(data)
    return _checked(data, places, problems, to_train=to_train, without_files=without_files)


def _checked(
    data: dict[str, Any], places: dict[Key, str], problems: list[str], *, to_train: bool = False, without_files: bool
) -> Recipe:
    """The recipe that `data` describes. Raises RecipeError with all that is wrong with it, after `problems`."""
    recipe, errors = None, []
    try:
        recipe = Recipe.model_validate(data, context={"without_files": without_files})
    except ValidationError as error:
        errors = error.errors()
    contradictions = conflicts(data) + (missing_here(data) if to_train else [])
    problems = problems + report(errors, contradictions, places)
    if problems or recipe is None:
        raise RecipeError(problems)
    return recipe


def _shrunk(data: dict[str, Any]) -> dict[str, Any]:
    """A recipe's data at the size of a laptop. Raises RecipeError where a part of it has no tiny stand-in."""
    from moka_peft.training.tiny import shrink_recipe  # writes media, for which an untold run needs no encoders

    try:
        return shrink_recipe(data)
    except ValueError as error:
        raise RecipeError([str(error)]) from error


def read_benchmarks(words: Sequence[str]) -> dict[str, Asked]:
    """The sections of `evaluation.benchmarks` that words such as `mme.folder=data/MME` make up.

    Raises RecipeError with all that is wrong with them.
    """
    prefix = ("evaluation", "benchmarks")
    data, places = {}, {(): "command line"}
    problems = _override(data, places, [".".join([*prefix, word]) for word in words])
    try:
        found = Benchmarks.model_validate((data.get("evaluation") or {}).get("benchmarks") or {})
    except ValidationError as error:
        errors = [{**each, "loc": (*prefix, *each["loc"])} for each in error.errors()]
        raise RecipeError(problems + report(errors, [], places)) from error
    if problems:
        raise RecipeError(problems)
    return found.chosen()


def check_machine(recipe: Recipe) -> None:
    """Raises RecipeError where this machine lacks what a recipe asks for."""
    if missing := missing_here(recipe.model_dump()):
        raise RecipeError([f"`{dotted(key)}` {problem}" for key, problem in missing])


def write_recipe(recipe: Recipe, path: Path) -> None:
    """Writes the whole recipe, defaults included, such that `load_recipe` gives the same one back."""
    write_whole(path, yaml.safe_dump(_plain(recipe), sort_keys=False))


def changed_recipe(recipe: Recipe, changes: Mapping[str, Any], place: str) -> Recipe:
    """The recipe with other values of some keys: {"training.steps": 3, "adapter": {...}}, a section replaces the whole.

    place: what errors call it. Raises RecipeError with all that is wrong with it.
    """
    data, places, problems = _plain(recipe), {(): place}, []
    for name, value in changes.items():
        try:
            _put(data, tuple(name.split(".")), copy.deepcopy(value))
        except TypeError:
            problems.append(f"{place}: `{name}` leads to no key: a part of it is a single value.")
    return _checked(data, places, problems, without_files=False)


def _plain(recipe: Recipe) -> dict[str, Any]:
    """What a recipe's file holds."""
    data = recipe.model_dump(exclude={"resume", "overwrite"}, exclude_none=True)
    return data | {"train": recipe.settings()["train"]}


def _read(path: Path) -> tuple[dict[str, Any], dict[Key, str]]:
    """Gives the data of a YAML file and the place (file:line) of each of its keys."""
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or "not UTF-8 text"
        raise RecipeError([f"{path}: the recipe cannot be read: {reason}. Give the path of a YAML file."]) from error
    try:
        node = yaml.compose(text, Loader=RecipeLoader)
        data = yaml.load(text, Loader=RecipeLoader)
    except yaml.MarkedYAMLError as error:
        line = error.problem_mark.line + 1 if error.problem_mark else 1
        raise RecipeError([f"{path}:{line}: not valid YAML: {error.problem}."]) from error
    if not isinstance(data, dict) or node is None:
        raise RecipeError([f"{path}:1: not a recipe: expected keys such as `model:` and `data:`."])
    return data, _places(node, path)


def _places(node: yaml.Node, path: Path) -> dict[Key, str]:
    """Where each key is written. Raises RecipeError for keys that are written twice: YAML takes the last."""
    places: dict[Key, str] = {(): f"{path}:1"}
    doubles = []
    for key, line in _lines(node, ()):
        if key in places:
            doubles.append(f"{path}:{line}: `{dotted(key)}` is written twice. Keep one of them.")
        places[key] = f"{path}:{line}"
    if doubles:
        raise RecipeError(doubles)
    return places


def _lines(node: yaml.Node, parent: Key) -> Iterator[tuple[Key, int]]:
    """Walks a YAML tree and gives each key, or position in a list, with its line."""
    if isinstance(node, yaml.MappingNode):
        for name, value in node.value:
            yield (*parent, name.value), name.start_mark.line + 1
            yield from _lines(value, (*parent, name.value))
    elif isinstance(node, yaml.SequenceNode):
        for position, value in enumerate(node.value):
            yield (*parent, position), value.start_mark.line + 1
            yield from _lines(value, (*parent, position))


def _override(data: dict[str, Any], places: dict[Key, str], overrides: Sequence[str]) -> list[str]:
    """Puts `a.b=value` settings into `data` and their place into `places`; returns what could not be read."""
    problems = []
    for text in overrides:
        name, equals, value = text.partition("=")
        key = tuple(name.strip().split("."))
        if not equals or not all(key):
            problems.append(f"command line: `{text}` is no setting: expected `section.key=value`.")
            continue
        try:
            _put(data, key, yaml.load(value, Loader=RecipeLoader))
        except yaml.YAMLError:
            problems.append(f"command line: `{text}` has a value that is not valid YAML. Quote it.")
        except TypeError:
            problems.append(f"command line: `{name}` leads to no key: a part of it is a single value.")
        places[key] = f"command line: {text}"
        for depth in range(1, len(key)):  # a section that the recipe does not have
            places.setdefault(key[:depth], places[key])
    return problems


def _put(data: dict[str, Any], key: tuple[str, ...], value: Any) -> None:
    """Sets a nested value; raises TypeError where the way there ends at a value that is no section."""
    for part in key[:-1]:
        if not isinstance(data, dict):
            raise TypeError(part)
        data = data.setdefault(part, {})
    if not isinstance(data, dict):
        raise TypeError(key[-1])
    data[key[-1]] = value
