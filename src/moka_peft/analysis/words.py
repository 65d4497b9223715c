"""Tokens as words that people read, for the axes of drawings."""

from __future__ import annotations

import unicodedata
from collections.abc import Sequence
from typing import Any

from moka_peft.routing.draw import visible

SPACE_MARKS = ("\u2581", "\u0120")  # of SentencePiece and of byte-level BPE
UNFINISHED = "\ufffd"  # a token that is a part of a character


def group_words(tokenizer: Any, ids: Sequence[int], positions: Sequence[int]) -> list[tuple[str, list[int]]]:
    """The tokens of `ids` at `positions` as (word, its positions); marks and characters of wide scripts stay alone."""
    groups: list[list[int]] = []
    before = ""
    for position in positions:
        piece, text = tokenizer.convert_ids_to_tokens(ids[position]), tokenizer.decode([ids[position]])
        follows = bool(groups) and groups[-1][-1] == position - 1 and not piece.startswith(SPACE_MARKS)
        if follows and (before == " " or _joins(before[-1:])) and _joins(text[:1]):  # a space may be a token
            groups[-1].append(position)
        else:
            groups.append([position])
        before = text
    return [(_shown(tokenizer.decode([ids[p] for p in group])), group) for group in groups]


def _joins(character: str) -> bool:
    if character == UNFINISHED:
        return True
    return character.isalnum() and unicodedata.east_asian_width(character) not in ("W", "F")


def _shown(text: str) -> str:
    return visible(text.strip(" ")) or "\u2423"
