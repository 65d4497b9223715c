"""The four forms in which people write conversations with media, read row by row.

| format | turns | media |
|---|---|---|
| openai | `messages` of role, content | content parts: text, image, image_url, input_audio, ... |
| messages | `messages` of role, content | `<image>` tags in the text, files in `images`, `videos`, `audios` |
| llava | `conversations` of from, value | `<image>` tags in the text, file or files in `image`, `video`, `audio` |
| sharegpt | `conversations` of from, value | `<image>` tags in the text, files in `images`, `videos`, `audios` |
"""

from collections.abc import Mapping
from typing import Any, Literal

from moka_peft.data.formats.row import Row
from moka_peft.data.formats.turns import OPENAI, SHAREGPT, read_turns
from moka_peft.data.media.options import MediaOptions
from moka_peft.data.samples import Sample

Format = Literal["openai", "messages", "llava", "sharegpt"]
TURNS = {"openai": "messages", "messages": "messages", "llava": "conversations", "sharegpt": "conversations"}

__all__ = ["TURNS", "Format", "Row", "read_row"]


def read_row(row: Row, options: MediaOptions, format: Format | None = None) -> Sample:
    """The sample that a row describes; its format is told by its keys, unless it is given.

    Raises ValueError or FileNotFoundError, naming file, row and field.
    """
    if not isinstance(row.data, Mapping):
        kind = type(row.data).__name__
        raise row.fail("row", f"expected an object with `messages` or `conversations`, got {kind}. Correct the row.")
    names = SHAREGPT if _turns(row, format) == "conversations" else OPENAI
    messages = read_turns(row, names, options)
    return Sample(str(row.data.get("id", row.name)), messages, _text(row, "group"), _text(row, "kind"), where=row.where)


def _turns(row: Row, format: Format | None) -> str:
    """The key of the list of turns. Raises ValueError where the row does not tell, or has not what it should."""
    if format is not None:
        return TURNS[format]
    found = [key for key in ("messages", "conversations") if row.data.get(key) is not None]
    if len(found) == 2:
        raise row.fail("conversations", "stands beside `messages`: expected one of them. Set `format`, or remove one.")
    return found[0] if found else "messages"


def _text(row: Row, field: str) -> str | None:
    value: Any = row.data.get(field)
    if value is not None and not isinstance(value, str):
        raise row.fail(field, f"expected a string, got {value!r}. Put it into quotes, or remove it.")
    return value
