"""Deals answers to choices, and questions to the groups of a benchmark."""

from collections.abc import Iterator, Sequence
from typing import TypeVar

Group = TypeVar("Group")

LETTERS = "ABCD"


def deal(samples: int, groups: Sequence[Group]) -> Iterator[tuple[int, Group]]:
    """The numbers of `samples` questions, each with its group in turn; at least one for each group."""
    for index in range(max(samples, len(groups))):
        yield index, groups[index % len(groups)]


def choices_with(right: str, words: Sequence[str], count: int, place: int) -> list[str]:
    """`count` of some words, the right one at a place (modulo `count`) and others about it."""
    others, place = [word for word in words if word != right], place % count
    return [*others[:place], right, *others[place : count - 1]]
