"""Reading a recipe from YAML, and saying everything that is wrong with it at once, each with its line."""

import difflib
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import yaml
from pydantic import BaseModel, ValidationError

from moka_peft.training.recipe import Recipe, conflicts

Key = tuple[str | int, ...]


class RecipeError(ValueError):
    """Everything that is wrong with a recipe; `problems` holds one line for each."""

    def __init__(self, problems: Sequence[str]):
        super().__init__("\n".join(problems))
        self.problems = list(problems)


class RecipeLoader(yaml.SafeLoader):
    """YAML in which `1e-3` is a number, as in YAML 1.2 and Python (PyYAML reads a string)."""


RecipeLoader.add_implicit_resolver(
    "tag:yaml.org,2002:float", re.compile(r"^[-+]?[0-9][0-9_]*(\.[0-9]*)?[eE][-+]?[0-9]+$"), list("-+0123456789")
)


def load_recipe(path: str | Path, overrides: Sequence[str] = ()) -> Recipe:
    """Reads a recipe, with `overrides` such as `training.learning_rate=1e-3` put over it.

    Raises RecipeError with every unknown key, wrong type, value out of range and missing file together.
    """
    data, places = _read(Path(path))
    problems = _override(data, places, overrides)
    try:
        recipe = Recipe.model_validate(data)
    except ValidationError as error:
        recipe, found = None, [(_written(e["loc"], places), _describe(e)) for e in error.errors()]
    else:
        found = []
    problems += _report(found + conflicts(data), places)
    if problems or recipe is None:
        raise RecipeError(problems)
    return recipe


def write_recipe(recipe: Recipe, path: Path) -> None:
    """Writes the whole recipe, defaults included, such that `load_recipe` gives the same one back."""
    data = recipe.model_dump(exclude={"resume", "overwrite"}, exclude_none=True)
    path.write_text(yaml.safe_dump(data, sort_keys=False), encoding="utf-8")


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
    places, doubles = {(): f"{path}:1"}, []
    for key, line, double in _lines(node, ()):
        places[key] = f"{path}:{line}"
        if double:
            doubles.append(f"{path}:{line}: `{_dotted(key)}` is written twice. Keep one of them.")
    if doubles:
        raise RecipeError(doubles)
    return data, places


def _lines(node: yaml.Node, parent: Key) -> Iterator[tuple[Key, int, bool]]:
    """Walks a YAML tree and gives each key, its line and whether its section has it already."""
    seen: set[str] = set()
    if isinstance(node, yaml.MappingNode):
        for name, value in node.value:
            yield (*parent, name.value), name.start_mark.line + 1, name.value in seen
            seen.add(name.value)
            yield from _lines(value, (*parent, name.value))
    elif isinstance(node, yaml.SequenceNode):
        for position, value in enumerate(node.value):
            yield (*parent, position), value.start_mark.line + 1, False
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
        section: Any = data
        for part in key[:-1]:
            section = section.setdefault(part, {}) if isinstance(section, dict) else None
        if not isinstance(section, dict):
            problems.append(f"command line: `{name}` does not lead to a key: a part of it is a single value.")
            continue
        try:
            section[key[-1]] = yaml.load(value, Loader=RecipeLoader)
        except yaml.YAMLError:
            problems.append(f"command line: `{text}` has a value that is not valid YAML. Quote it.")
        places[key] = f"command line: {text}"
    return problems


def _report(found: list[tuple[Key, str]], places: dict[Key, str]) -> list[str]:
    """One line per key, in the order of the file; what several types say of one value becomes one line."""
    texts: dict[Key, list[str]] = {}
    for key, text in found:
        texts.setdefault(key, []).append(text)
    order = list(places)
    lines = [(_nearest(key, places), key, " Or: ".join(dict.fromkeys(text))) for key, text in texts.items()]
    lines.sort(key=lambda line: order.index(line[0]))
    return [f"{places[near]}: `{_dotted(key)}` {text}" for near, key, text in lines]


def _written(key: Key, places: dict[Key, str]) -> Key:
    """The key as the recipe has it, without the names of types that pydantic adds behind it."""
    near = _nearest(key, places)
    return near if key[: len(near) + 1] not in set(_known_keys(Recipe)) and near else key


def _nearest(key: Key, places: dict[Key, str]) -> Key:
    """The key itself where it is written, else the nearest section around it that is."""
    while key not in places:
        key = key[:-1]
    return key


def _describe(error: Any) -> str:
    """Says what is wrong with one value, in the words of this project."""
    if error["type"] == "extra_forbidden":
        return f"is not a recipe key.{_suggest(tuple(error['loc']))}"
    if error["type"] == "missing":
        return "is missing. Add it to the recipe."
    if error["type"] == "value_error":
        return f"is wrong: {error['ctx']['error']}."
    expected = error["msg"].removeprefix("Input should be ")
    return f"is wrong: expected {expected}, got {error['input']!r}."


def _suggest(key: Key) -> str:
    """Names the nearest known key: first in the same section, then in the whole recipe."""
    known = list(_known_keys(Recipe))
    here = {name[-1]: name for name in known if name[:-1] == key[:-1]}
    anywhere = {name[-1]: name for name in known}
    for candidates in (here, anywhere):
        near = difflib.get_close_matches(str(key[-1]), list(candidates), n=1, cutoff=0.6)
        if near:
            return f" Did you mean `{_dotted(candidates[near[0]])}`?"
    return f" Known here: {', '.join(sorted(here))}." if here else ""


def _known_keys(section: type[BaseModel], parent: Key = ()) -> Iterator[Key]:
    for name, field in section.model_fields.items():
        yield (*parent, name)
        for kind in (field.annotation, *getattr(field.annotation, "__args__", ())):
            if isinstance(kind, type) and issubclass(kind, BaseModel):
                yield from _known_keys(kind, (*parent, name))


def _dotted(key: Key) -> str:
    return ".".join(str(part) for part in key)
