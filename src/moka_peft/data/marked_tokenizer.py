"""Follows marked answers through whatever a processor does to its text, to the tokens."""

from __future__ import annotations

import copy
import re
from typing import Any

import numpy as np

from moka_peft.data.answers import CLOSE, OPEN

_MARK = re.compile(f"[{OPEN}{CLOSE}]")


class MarkedTokenizer:
    """Stands in for a processor's tokenizer: takes the marks out of the text and notes which tokens lay between them.

    A processor may write tiles, line ends or times around media; it copies what stands between them, marks too. So
    the answers are found in the very text that becomes `input_ids`, and nothing has to be aligned.
    """

    def __init__(self, tokenizer: Any):
        self.tokenizer = tokenizer
        self.calls: list[tuple[list[list[int]], list[np.ndarray]]] = []

    @classmethod
    def inside(cls, processor: Any) -> tuple[Any, MarkedTokenizer]:
        """A copy of the processor that tokenises through a new MarkedTokenizer, and that tokenizer."""
        marked, processor = cls(processor.tokenizer), copy.copy(processor)
        processor.tokenizer = marked
        return processor, marked

    def __getattr__(self, name: str) -> Any:
        if name == "tokenizer":  # not there yet while an instance is copied
            raise AttributeError(name)
        return getattr(self.tokenizer, name)

    def __len__(self) -> int:
        return len(self.tokenizer)

    def __call__(self, text: Any = None, *args: Any, **options: Any) -> Any:
        rows = [text] if isinstance(text, str) else text
        if not (isinstance(rows, list | tuple) and rows and all(isinstance(row, str) for row in rows)):
            return self.tokenizer(text, *args, **options)
        bare = [_MARK.sub("", row) for row in rows]
        options["return_offsets_mapping"] = True
        encoding = self.tokenizer(bare[0] if isinstance(text, str) else bare, *args, **options)
        offsets = encoding.pop("offset_mapping")
        ids = encoding["input_ids"]
        if isinstance(text, str):
            offsets, ids = [offsets], [ids]
        masks = [tokens_inside(np.asarray(o).reshape(-1, 2), _spans(row)) for o, row in zip(offsets, rows, strict=True)]
        self.calls.append(([_as_list(row) for row in ids], masks))
        if bare != list(rows):
            encoding.char_to_token = _Positions(encoding.char_to_token, list(rows))
        return encoding

    def masks_for(self, input_ids: Any, owner: str) -> list[np.ndarray]:
        """Which tokens of each row of `input_ids` [B, S] are answer, each [S].

        Raises ValueError where the processor's rows are not what its tokenizer made.
        """
        wanted = [_as_list(row) for row in input_ids]
        for ids, masks in reversed(self.calls):
            if ids == wanted:
                return masks
        raise ValueError(
            f"{owner} returns other tokens than its tokenizer made of its text, so answers cannot be located. Use a "
            "processor that leaves `input_ids` as they are."
        )


class _Positions:
    """`char_to_token` of an encoding for positions in the text that still has its marks: some processors ask."""

    def __init__(self, lookup: Any, marked: list[str]):
        self.lookup, self.marked = lookup, marked

    def __call__(self, row: int, position: int | None = None, *rest: Any) -> int | None:
        if position is None:
            row, position = 0, row
        return self.lookup(row, position - len(_MARK.findall(self.marked[row][:position])), *rest)


def tokens_inside(offsets: np.ndarray, spans: list[tuple[int, int]]) -> np.ndarray:
    """Which tokens, given their characters [tokens, 2], belong to one of the spans [tokens].

    A token that begins before a span and reaches into it does: tokenizers join the space before a word to it.
    """
    start, end = offsets[:, 0], offsets[:, 1]
    inside = [((start >= first) & (start < last)) | ((start < first) & (end > first)) for first, last in spans]
    return np.any(inside, axis=0) if inside else np.zeros(len(offsets), dtype=bool)


def _spans(marked: str) -> list[tuple[int, int]]:
    """Where the marked answers stand once the marks are gone."""
    positions = [match.start() - i for i, match in enumerate(_MARK.finditer(marked))]
    return list(zip(positions[::2], positions[1::2], strict=True))


def _as_list(row: Any) -> list[int]:
    return row.tolist() if hasattr(row, "tolist") else list(row)
