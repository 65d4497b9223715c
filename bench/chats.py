"""Random chats for a shape: the tensors of a training step and of prompts, laid out as its processor would."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from types import SimpleNamespace
from typing import Any

import torch
from shapes import Medium, Shape
from torch import Tensor

from moka_peft.data.packing import Packing

MERGED = 4  # 2 by 2 patches make one token
PATCH_VALUES = 3 * 2 * 14 * 14  # a patch is 14 by 14 pixels of two frames
FIRST_TEXT, LAST_TEXT = 1000, 70000  # ordinary words in both vocabularies

Token = tuple[int, bool]  # id, and whether it carries loss


@dataclass(frozen=True)
class Lengths:
    """How long a chat is, in tokens; `image_patches`: the side of a square image, 32 for 448 pixels."""

    image_patches: int = 32
    question: int = 128
    prompt_answer: int = 64
    sequence: int = 2048

    @property
    def medium(self) -> int:
        """Tokens of one image or clip."""
        return self.image_patches**2 // MERGED


TINY_LENGTHS = Lengths(image_patches=4, question=6, prompt_answer=4, sequence=64)


@dataclass(frozen=True)
class ChatWriter:
    """Writes chats of one shape. `generator` draws words and images, on the CPU."""

    shape: Shape
    lengths: Lengths
    generator: torch.Generator
    device: str
    dtype: torch.dtype = torch.bfloat16

    def training_batch(self) -> dict[str, Tensor]:
        """One row of `lengths.sequence` tokens, a user turn per medium, labels on the answers alone."""
        media = self.shape.media
        free = self.lengths.sequence - len(self._row(media, [0] * len(media)))
        answers = [free // len(media)] * len(media)
        answers[-1] += free - sum(answers)
        row = self._row(media, answers)
        inputs = self._inputs([row], media)
        labels = [token if carries_loss else -100 for token, carries_loss in row]
        return {**inputs, "labels": torch.tensor([labels], device=self.device)}

    def packed_batch(self, config: Any) -> dict[str, Tensor]:
        """Chats of one medium and of all, with answers of different lengths, in one row of twice `lengths.sequence`."""
        writer, media, capacity = replace(self, device="cpu"), self.shape.media, 2 * self.lengths.sequence
        chats: list[dict[str, Tensor]] = []
        left = capacity
        while True:
            shown = media[: 1 + len(chats) % len(media)]
            row = writer._row(shown, [self.lengths.prompt_answer * (1 + len(chats) % 3)] * len(shown))
            if len(row) > left:
                break
            left -= len(row)
            labels = [token if carries_loss else -100 for token, carries_loss in row]
            chats.append({**writer._inputs([row], shown), "labels": torch.tensor([labels])})
        processor = SimpleNamespace(tokenizer=SimpleNamespace(pad_token_id=self.shape.pad))
        packed = Packing.of(processor, config, capacity).pack(chats)
        return {name: value.to(self.device) for name, value in packed.items() if isinstance(value, Tensor)}

    def prompts(self) -> dict[str, Tensor]:
        """Two rows of different length, left-padded: the second turn of a chat, and the first of another."""
        media = self.shape.media
        rows = [self._row(media, [self.lengths.prompt_answer]), self._row(media[:1], [])]
        return self._inputs(rows, [*media, media[0]])

    def _row(self, media: Sequence[Medium], answers: Sequence[int]) -> list[Token]:
        """A turn for each medium; turns that `answers` has no length for stay open for one."""
        shape, row = self.shape, []
        for index, medium in enumerate(media):
            placeholders = (medium.placeholder,) * self.lengths.medium
            question = (*medium.before, *placeholders, *medium.after, *self._words(self.lengths.question))
            row += _without_loss(*shape.user_open, *question, *shape.user_close, *shape.answer_open)
            if index < len(answers):
                row += [(token, True) for token in (*self._words(answers[index]), *shape.answer_close)]
        return row

    def _words(self, count: int) -> list[int]:
        return torch.randint(FIRST_TEXT, LAST_TEXT, (count,), generator=self.generator).tolist()

    def _inputs(self, rows: Sequence[Sequence[Token]], media: Sequence[Medium]) -> dict[str, Tensor]:
        length = max(map(len, rows))
        ids = [[self.shape.pad] * (length - len(row)) + [token for token, _ in row] for row in rows]
        mask = [[0] * (length - len(row)) + [1] * len(row) for row in rows]
        inputs = {"input_ids": torch.tensor(ids), "attention_mask": torch.tensor(mask)}
        images = [medium for medium in media if medium.is_image]
        if images:
            side, patches = self.lengths.image_patches, len(images) * self.lengths.image_patches**2
            inputs["pixel_values"] = torch.randn(patches, PATCH_VALUES, generator=self.generator).to(self.dtype)
            inputs["image_grid_thw"] = torch.tensor([[1, side, side]] * len(images))
            inputs["mm_token_type_ids"] = (inputs["input_ids"] == images[0].placeholder).long()
        return {name: value.to(self.device) for name, value in inputs.items()}


def _without_loss(*tokens: int) -> list[Token]:
    return [(token, False) for token in tokens]


def continued(inputs: dict[str, Tensor], ids: Tensor) -> dict[str, Tensor]:
    """`inputs` of prompts, for one forward on `ids` [B, S] that go on after them with text."""
    more = ids.shape[1] - inputs["input_ids"].shape[1]
    longer = {"input_ids": ids, "attention_mask": torch.nn.functional.pad(inputs["attention_mask"], (0, more), value=1)}
    if "mm_token_type_ids" in inputs:
        longer["mm_token_type_ids"] = torch.nn.functional.pad(inputs["mm_token_type_ids"], (0, more))
    else:  # a model with positions of three axes finds them itself; others count padding unless told
        longer["position_ids"] = (longer["attention_mask"].cumsum(1) - 1).clamp(min=0)
    return {**inputs, **longer}
