"""Layout strings such as "xiy|pp|q" to the inputs of a tiny multimodal model: ids, mask and seeded media."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor
from transformers import PreTrainedModel

from moka_peft import RoutingSpec

PAD, BOS, USER, SEP, END, EOS = range(6)
IMAGE, IMAGE_START, IMAGE_END = 50, 51, 52
VIDEO, VIDEO_START, VIDEO_END = 55, 56, 57
AUDIO, AUDIO_START, AUDIO_END = 60, 61, 62
TIME = 65  # a time stamp before a frame
FIRST_TEXT, FIRST_MARK, LAST_MARK = 6, 46, 69  # text letters are 6 to 45; a model may generate 70 and more, too
PLACEHOLDERS = {"visual": (IMAGE, VIDEO), "audio": (AUDIO,)}
MEDIA_TYPES = {"i": 1, "v": 2, "a": 3}

Tensors = dict[str, Tensor]


@dataclass(frozen=True)
class Item:
    """One image, video or audio clip: the tokens that stand for it, and what draws its tensors."""

    tokens: tuple[int, ...]
    draw: Callable[[torch.Generator], Tensors]


def normal(generator: torch.Generator, *shape: int) -> Tensor:
    """Standard normal values."""
    return torch.randn(*shape, generator=generator)


def concatenate(rows: Sequence[Sequence[Tensors]]) -> Tensors:
    """The tensors of all items of all rows, in order, joined along the first dimension."""
    items = [item for row in rows for item in row]
    names = dict.fromkeys(name for item in items for name in item)
    return {name: torch.cat([item[name] for item in items if name in item]) for name in names}


@dataclass(frozen=True)
class Family:
    """A kind of multimodal model: a tiny random one, and inputs for it.

    `items`: letter ("i", "v", "a") -> the item it stands for. `type_ids`: the keyword of the token types, where the
    family's processor returns them by default; `types`: their numbers, 0 for text. `collate`: what turns the items of
    the rows into forward's keywords; it is not called without any item. `together`: whether one batch can hold
    several kinds of media. `part`: the submodule that has the forward, where it is not the model. `generated_type`:
    the token type of what follows the prompt. `note`: what is peculiar to the family.
    """

    name: str
    build: Callable[[], PreTrainedModel]
    items: Mapping[str, Item]
    type_ids: str | None = None
    types: Mapping[str, int] = field(default_factory=lambda: MEDIA_TYPES)
    collate: Callable[[Sequence[Sequence[Tensors]]], Tensors] = concatenate
    together: bool = True
    part: str = ""
    generated_type: int = 0
    note: str = field(default="", compare=False)

    @property
    def media(self) -> str:
        """The letters of the media that the model takes, e.g. "iv"."""
        return "".join(self.items)

    @property
    def spec(self) -> RoutingSpec:
        """Turns look like USER SEP ... END; tokens around media are skipped."""
        tokens = sorted({token for item in self.items.values() for token in item.tokens})
        used = {name: tuple(t for t in ids if t in tokens) for name, ids in PLACEHOLDERS.items()}
        return RoutingSpec(
            placeholders={name: ids for name, ids in used.items() if ids},
            user_open=((USER, SEP),),
            user_close=((END,),),
            skip=tuple(t for t in tokens if t not in (IMAGE, VIDEO, AUDIO)),
        )

    def inputs(self, rows: Sequence[str], *, padding_side: str = "right", media_seed: int = 0) -> Tensors:
        """What forward and `generate` take for these rows, e.g. inputs(["xiy|pp|q", "qw"]).

        An item's content depends on `media_seed` and on its index within its row alone.
        """
        tokens = [self._row_tokens(row) for row in rows]
        ids = _pad([[token for token, _ in row] for row in tokens], PAD, padding_side)
        mask = _pad([[1] * len(row) for row in tokens], 0, padding_side)
        inputs = {"input_ids": ids, "attention_mask": mask}
        if self.type_ids is not None:
            inputs[self.type_ids] = _pad([[kind for _, kind in row] for row in tokens], 0, padding_side)
        media = [self.row_media(row, media_seed) for row in rows]
        return {**inputs, **self.collate(media)} if any(media) else inputs

    def _row_tokens(self, row: str) -> list[tuple[int, int]]:
        """(id, token type) of every token."""
        tokens = [(BOS, 0)]
        for index, turn in enumerate(row.split("|")):
            body = [pair for letter in turn for pair in self._letter_tokens(letter)]
            tokens += [(USER, 0), (SEP, 0), *body, (END, 0)] if index % 2 == 0 else [*body, (EOS, 0)]
        return tokens

    def _letter_tokens(self, letter: str) -> list[tuple[int, int]]:
        if letter in MEDIA_TYPES and letter not in self.items:
            raise ValueError(f"`{letter}`: {self.name} takes {self.media!r} only.")
        if letter not in self.items:
            return [(text_id(letter), 0)]
        kind = self.types.get(letter, 0)
        return [(t, kind if t in (IMAGE, VIDEO, AUDIO) else 0) for t in self.items[letter].tokens]

    def row_media(self, row: str, media_seed: int = 0) -> list[Tensors]:
        """The tensors of each item of the row, in order."""
        letters = [letter for letter in row if letter in self.items]
        return [
            self.items[letter].draw(torch.Generator().manual_seed(1000 * media_seed + index))
            for index, letter in enumerate(letters)
        ]


def text_id(letter: str) -> int:
    """The token of a text letter: 6 to 45, one for each of a to z."""
    return FIRST_TEXT + ord(letter) % 40


def _pad(rows: list[list[int]], value: int, side: str) -> Tensor:
    length = max(map(len, rows))
    filled = [[value] * (length - len(row)) for row in rows]
    return torch.tensor([row + f if side == "right" else f + row for row, f in zip(rows, filled, strict=True)])
