"""Conversations in LLaVA's form split into single turns, each asked with the picture."""

import re
from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any

import numpy as np

from moka_peft.data.containers.contents import Container
from moka_peft.data.formats.row import Row

_TAG = re.compile(r"\s*<(image|video|audio)>\s*")
_SHOWN = {
    "image": "This is an image:\n<image>\n",
    "video": "This is a video:\n<video>\n",
    "audio": "This is an audio:\n<audio>\n",
}  # as MokA's authors show media


class SingleTurns:
    """Each question of a container's conversations as a row of its own: all media of the row, then the question.

    request: how it is asked, with `{question}`. Holds 8 bytes for each turn. A row that is no such conversation stays
    one row, which fails when it is read.
    """

    def __init__(self, rows: Container, request: str):
        self.rows, self.path, self.block, self.request = rows, rows.path, rows.block, request
        counts = [_count_turns(rows, index) for index in range(len(rows))]
        self._row = np.repeat(np.arange(len(counts), dtype=np.int32), counts)
        self._turn = np.concatenate([np.arange(count, dtype=np.int32) for count in counts] or [self._row])
        self.sizes = [len(self._row)]
        self.settings = f"single turns: {request}"
        self.fingerprint = getattr(rows, "fingerprint", None)

    def __len__(self) -> int:
        return len(self._row)

    def where(self, index: int) -> str:
        return f"{self.rows.where(int(self._row[index]))}, turn {int(self._turn[index]) + 1}"

    def read(self, index: int) -> Row:
        row, turn = self.rows.read(int(self._row[index])), int(self._turn[index])
        if _turns(row.data) is None:
            _check_speakers(row)
            return row
        return replace(
            row, data=_one_of(row.data, turn, self.request), where=self.where(index), name=f"{row.name}-{turn + 1}"
        )


def _check_speakers(row: Row) -> None:
    """Raises ValueError where others speak: such a row can be read, but would stay a conversation of several turns."""
    turns = row.data.get("conversations") if isinstance(row.data, Mapping) else None
    for place, turn in enumerate(turns if isinstance(turns, list) else ()):
        who = turn.get("from") if isinstance(turn, Mapping) else None
        if who is not None and who not in ("human", "gpt"):
            field = f"conversations[{place}].from"
            raise row.fail(field, f"cannot be split: expected human or gpt, got {who!r}. Set `turns: multi`.")


def _count_turns(rows: Container, index: int) -> int:
    try:
        turns = _turns(rows.read(index).data)
    except (OSError, ValueError):
        return 1
    return 1 if turns is None else len(turns) // 2


def _turns(data: Any) -> list[Mapping[str, Any]] | None:
    """The messages of a conversation of questions and answers; None where it is none."""
    turns = data.get("conversations") if isinstance(data, Mapping) else None
    if not isinstance(turns, list) or len(turns) < 2 or len(turns) % 2:
        return None
    right = all(isinstance(turn, Mapping) and isinstance(turn.get("value"), str) for turn in turns)
    ordered = right and [turn.get("from") for turn in turns] == ["human", "gpt"] * (len(turns) // 2)
    return turns if ordered else None


def _one_of(data: Mapping[str, Any], turn: int, request: str) -> dict[str, Any]:
    """A conversation's row with one of its turns, which is asked with all of its media in front."""
    asked, answered = data["conversations"][2 * turn : 2 * turn + 2]
    question = _TAG.sub("\n", asked["value"]).strip()
    asked = "".join(_SHOWN[type] for type in _types(data)) + request.format(question=question)
    turns = [{"from": "human", "value": asked}, {"from": "gpt", "value": answered["value"]}]
    name = {"id": f"{data['id']}-{turn + 1}"} if "id" in data else {}
    return {**data, **name, "conversations": turns}


def _types(data: Mapping[str, Any]) -> Iterator[str]:
    """The type of each medium of a row."""
    for type in _SHOWN:
        files = data.get(type) or data.get(f"{type}s") or []
        yield from [type] * (len(files) if isinstance(files, list) else 1)
