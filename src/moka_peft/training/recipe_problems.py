"""What is wrong with a recipe, in words: one line per key, with its place and the nearest known key."""

import difflib
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from pydantic import BaseModel

from moka_peft.training.recipe import Recipe

Key = tuple[str | int, ...]


def report(errors: Sequence[Any], conflicts: Sequence[tuple[Key, str]], places: Mapping[Key, str]) -> list[str]:
    """One line per wrong key, in the order of the recipe.

    errors: what pydantic found; conflicts: (key, what is wrong); places: where each key is written.
    """
    found: dict[Key, list[Any]] = {}
    for error in errors:
        found.setdefault(_written(tuple(error["loc"]), places), []).append(error)
    texts = [(key, _describe(key, group)) for key, group in found.items()] + list(conflicts)
    order = {key: position for position, key in enumerate(places)}
    texts.sort(key=lambda text: order[_nearest(text[0], places)])
    return [f"{places[_nearest(key, places)]}: `{dotted(key)}` {text}" for key, text in texts]


def dotted(key: Key) -> str:
    """A key as it is written on the command line."""
    return ".".join(str(part) for part in key)


def _describe(key: Key, errors: Sequence[Any]) -> str:
    """Says what is wrong with one value; a value that fits none of several types has an error for each."""
    error = errors[0]
    if error["type"] == "extra_forbidden":
        return f"is not a recipe key.{_suggest(key)}"
    if error["type"] == "missing":
        return "is missing. Add it to the recipe."
    if error["type"] == "value_error":
        return f"is wrong: {error['ctx']['error']}."
    expected = [_EXPECTED.get(e["type"]) or e["msg"].removeprefix("Input should be ") for e in errors]
    return f"is wrong: expected {' or '.join(dict.fromkeys(expected))}, got {error['input']!r}."


_EXPECTED = {"model_type": "a section of keys", "dict_type": "a section of keys"}


def _suggest(key: Key) -> str:
    """Names the nearest known key: first in the same section, then in the whole recipe."""
    known, section = list(_known_keys(Recipe)), tuple(part for part in key[:-1] if isinstance(part, str))  # of a list
    here = {str(name[-1]): name for name in known if name[:-1] == section}
    anywhere = {str(name[-1]): name for name in known}
    for candidates, likeness in ((here, 0.5), (anywhere, 0.6)):
        if near := difflib.get_close_matches(str(key[-1]), list(candidates), n=1, cutoff=likeness):
            return f" Did you mean `{dotted(candidates[near[0]])}`?"
    return f" Known here: {', '.join(sorted(here))}." if here else ""


def _known_keys(section: type[BaseModel], parent: Key = ()) -> Iterator[Key]:
    for name, field in section.model_fields.items():
        yield (*parent, name)
        for kind in (field.annotation, *getattr(field.annotation, "__args__", ())):
            if isinstance(kind, type) and issubclass(kind, BaseModel):
                yield from _known_keys(kind, (*parent, name))


def _written(key: Key, places: Mapping[Key, str]) -> Key:
    """The key as a recipe has it: pydantic adds the names of types behind the key of a value with several."""
    near = _nearest(key, places)
    is_missing_key = key[: len(near) + 1] in set(_known_keys(Recipe))
    return key if is_missing_key else near


def _nearest(key: Key, places: Mapping[Key, str]) -> Key:
    """The key itself where it is written, else the nearest section around it that is."""
    while key not in places:
        key = key[:-1]
    return key
