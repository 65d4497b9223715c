"""Elements of HTML and SVG as text, in which everything that is not markup itself is escaped."""

import html
from collections.abc import Iterable


class Markup(str):
    """Text that is written as it is."""


def tag(name: str, *children: object, **attributes: object) -> Markup:
    """An element. None and False as a child or an attribute's value leave it out, True is an attribute without value.

    In an attribute's name `_` stands for `-`, and one at the end is dropped: `class_`, `stroke_width`.
    """
    written = "".join(_attribute(key, value) for key, value in attributes.items())
    return Markup(f"<{name}{written}>{join(children)}</{name}>")


def join(children: Iterable[object]) -> Markup:
    """Markup as it is, other things as escaped text."""
    return Markup("".join(_escaped(child) for child in children if child is not None and child is not False))


def _escaped(child: object) -> str:
    return child if isinstance(child, Markup) else html.escape(str(child))


def _attribute(key: str, value: object) -> str:
    name = key.removesuffix("_").replace("_", "-")
    if value is None or value is False:
        return ""
    if value is True:
        return f" {name}"
    return f' {name}="{html.escape(f"{value:.1f}" if isinstance(value, float) else str(value))}"'
