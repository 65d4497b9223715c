"""A message's content, as text with tags or as OpenAI's content parts, becomes the parts of a sample."""

import base64
import binascii
import re
from collections.abc import Mapping
from typing import Any

from moka_peft.data.formats.row import Row
from moka_peft.data.media.options import MediaOptions
from moka_peft.data.samples import MEDIA

TAG = re.compile("(<image>|<video>|<audio>)")
_URL_PARTS = {f"{type}_url": type for type in MEDIA}


def read_content(row: Row, field: str, content: Any, options: MediaOptions) -> list[dict[str, Any]]:
    """The parts of one message; a tag becomes a media part without a file, to be filled from the row's lists."""
    if isinstance(content, str):
        return _split_tags(content)
    if not isinstance(content, list):
        raise row.fail(field, f"expected text or a list of parts, got {content!r}. Write the message as text.")
    groups = [_read_part(row, f"{field}[{i}]", part, options) for i, part in enumerate(content)]
    return [part for group in groups for part in group]


def _read_part(row: Row, field: str, part: Any, options: MediaOptions) -> list[dict[str, Any]]:
    type = part.get("type") if isinstance(part, Mapping) else None
    if type == "text":
        if not isinstance(part.get("text"), str):
            raise row.fail(f"{field}.text", f"expected a string, got {part.get('text')!r}. Write the text there.")
        return _split_tags(part["text"])
    if type == "input_audio":
        return [{"type": "audio", "audio": _base64(row, f"{field}.input_audio", part.get("input_audio"))}]
    if type in _URL_PARTS:
        url = part.get(type)
        url = url.get("url") if isinstance(url, Mapping) else url
        medium = _URL_PARTS[type]
        return [{"type": medium, medium: row.medium(f"{field}.{type}", url, options)}]
    if type not in MEDIA:
        raise row.fail(
            f"{field}.type",
            f"expected text, image, video or audio, got {type!r}. Use one of these, or OpenAI's image_url, "
            "input_audio, audio_url, video_url.",
        )
    key = next((key for key in (type, "path", "url") if key in part), None)
    if key is None:
        return [{"type": type}]
    return [{"type": type, type: row.medium(f"{field}.{key}", part[key], options)}]


def _base64(row: Row, field: str, value: Any) -> bytes:
    data = value.get("data") if isinstance(value, Mapping) else None
    try:
        if not isinstance(data, str) or not data:
            raise ValueError("it has no text in `data`")
        return base64.b64decode(data, validate=True)
    except (binascii.Error, ValueError) as error:
        raise row.fail(
            field, f"expected {{data: base64, format: wav}}, got something else: {error}. Encode the file again."
        ) from error


def _split_tags(text: str) -> list[dict[str, Any]]:
    pieces = [piece for piece in TAG.split(text) if piece]
    return [{"type": p[1:-1]} if TAG.fullmatch(p) else {"type": "text", "text": p} for p in pieces]


def fill_tags(row: Row, messages: list[dict[str, Any]], options: MediaOptions) -> None:
    """Gives every tag its file from the row's lists (`images` or `image`, ...), in reading order."""
    for type in MEDIA:
        tags = [part for m in messages for part in m["content"] if part["type"] == type and type not in part]
        field, files = _files(row, type)
        if len(tags) != len(files):
            raise row.fail(
                field,
                f"{len(tags)} `<{type}>` in the text, {len(files)} {type} files attached. "
                f"Write one `<{type}>` per file where the model shall see it, or correct the list of files.",
            )
        for i, (tag, name) in enumerate(zip(tags, files, strict=True)):
            tag[type] = row.medium(f"{field}[{i}]", name, options)


def _files(row: Row, type: str) -> tuple[str, list[Any]]:
    """The field that lists a row's files of one type, and what it lists."""
    several, one = row.data.get(f"{type}s"), row.data.get(type)
    if several and one:
        raise row.fail(type, f"stands beside `{type}s`: expected one of them. Remove the other.")
    if one:
        return type, one if isinstance(one, list) else [one]
    if not isinstance(several or [], list):
        raise row.fail(f"{type}s", f"expected a list of paths, got {several!r}. Put it into [ ].")
    return f"{type}s", several or []
