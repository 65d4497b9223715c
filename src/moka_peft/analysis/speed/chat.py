"""Chats of random tokens, laid out turn by turn as a processor would, and the spec that routes them.

Placeholders and markers are ordinary ids of the model's vocabulary: it runs without its encoders, and the routing is
read from `input_ids` as from real chats.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from moka_peft.routing import Routing, RoutingSpec, route

MEAN_RUN = 4  # tokens of one kind in a row, where kinds alternate
NAMES = ("text", "visual", "audio")


def modality_names(count: int) -> tuple[str, ...]:
    """Names of `count` modalities, text first."""
    return (*NAMES, *(f"sensor_{index}" for index in range(3, count)))[:count]


@dataclass(frozen=True)
class ChatLayout:
    """`batch` rows of `length` tokens in `turns` user turns of one length each, the last takes what is left over.

    A turn: its opening, a run of each medium, `instruction` tokens (at most a quarter of the turn), its close, and an
    answer of an eighth. `alternating`: media and instruction in short runs of random order instead of one each, so
    many of each kind as without.
    """

    batch: int = 4
    length: int = 256
    turns: int = 1
    instruction: int = 64
    modalities: int = 3
    alternating: bool = False

    def __post_init__(self) -> None:
        least = 4 * self.modalities + 8
        if self.length // self.turns < least:
            raise ValueError(
                f"`length` of a chat: expected at least {least} tokens a turn for {self.modalities} modalities, got "
                f"{self.length} for {self.turns} turns. Take more tokens, or fewer rows or turns."
            )

    @property
    def tokens(self) -> int:
        return self.batch * self.length

    def turn_lengths(self) -> list[int]:
        each = self.length // self.turns
        return [each] * (self.turns - 1) + [self.length - each * (self.turns - 1)]

    def parts(self, length: int) -> tuple[list[int], int, int]:
        """Of a turn of `length` tokens: those of each medium, of the instruction, of the answer."""
        answer, instruction = max(length // 8, 1), min(self.instruction, length // 4)
        left, media = length - 2 - answer - instruction, self.modalities - 1
        return [left // media + (index < left % media) for index in range(media)], instruction, answer


@dataclass(frozen=True)
class ChatTokens:
    """The ids that chats are written with. `ids`: of the vocabulary, those that a model takes as plain text."""

    ids: Sequence[int]
    modalities: int = 3

    @classmethod
    def of(cls, config: Any, modalities: int = 3) -> ChatTokens:
        """Of a model's vocabulary what none of its config's token ids names."""
        text = config.get_text_config()
        named: set[int] = set()
        for part in (config, text):
            for name, value in vars(part).items():
                if name.endswith(("_token_id", "_token_index")):
                    named |= set(value if isinstance(value, list | tuple) else [value])
        return cls([index for index in range(text.vocab_size) if index not in named], modalities)

    @property
    def spec(self) -> RoutingSpec:
        """Where turns open and close, and which ids stand for media."""
        names = modality_names(self.modalities)
        placeholders = {name: (self.ids[2 + index],) for index, name in enumerate(names[1:])}
        return RoutingSpec(placeholders, user_open=((self.ids[0],),), user_close=((self.ids[1],),))

    def write(self, layout: ChatLayout, seed: int = 0, device: str = "cpu") -> dict[str, Tensor]:
        """`input_ids`, `attention_mask` and `labels` (on answers alone), each [batch, length]."""
        rng = random.Random(seed)
        rows = [self._row(layout, rng) for _ in range(layout.batch)]
        ids = torch.tensor([[token for token, _ in row] for row in rows])
        with_loss = torch.tensor([[is_answer for _, is_answer in row] for row in rows])
        batch = {"input_ids": ids, "attention_mask": torch.ones_like(ids), "labels": ids.where(with_loss, -100)}
        return {name: value.to(device) for name, value in batch.items()}

    def routing(self, layout: ChatLayout, seed: int = 0, device: str = "cpu") -> Routing:
        """The routing of such chats, read from their ids."""
        inputs = self.write(layout, seed)
        return route(inputs["input_ids"], self.spec, inputs["attention_mask"]).to(device)

    def _row(self, layout: ChatLayout, rng: random.Random) -> list[tuple[int, bool]]:
        row: list[tuple[int, bool]] = []
        words = self.ids[1 + layout.modalities :]
        for length in layout.turn_lengths():
            media, instruction, answer = layout.parts(length)
            runs = [[self.ids[2 + index]] * count for index, count in enumerate(media)]
            runs.append(rng.choices(words, k=instruction))
            if layout.alternating:
                runs = [piece for run in runs for piece in _pieces(run, rng)]
                rng.shuffle(runs)
            asked = [self.ids[0], *(token for run in runs for token in run), self.ids[1]]
            row += [(token, False) for token in asked] + [(token, True) for token in rng.choices(words, k=answer)]
        return row


def _pieces(run: list[int], rng: random.Random) -> list[list[int]]:
    """`run` cut into pieces of 1 to 7 tokens."""
    pieces, start = [], 0
    while start < len(run):
        size = rng.randint(1, 2 * MEAN_RUN - 1)
        pieces.append(run[start : start + size])
        start += size
    return pieces
