"""Reads JSON and JSON-lines files of messages; an error names the file, the row and the field."""

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from moka_peft.data.media import existing
from moka_peft.data.samples import MEDIA, Sample

_ROLES = ("system", "user", "assistant")
_TAG = re.compile("(<image>|<video>|<audio>)")


def read_message_file(path: str | Path) -> list[Sample]:
    """The samples of a file: a JSON list of rows, or JSON lines for the suffixes .jsonl and .ndjson.

    A row has `messages` and, optionally, `id`, `group`, `kind`. Media are content parts, or `<image>`,
    `<video>`, `<audio>` tags in the text with the files listed in `images`, `videos`, `audios`. Relative
    paths start at the folder of the file. Raises ValueError or FileNotFoundError.
    """
    path = existing(path, "data file")
    rows = _json_lines(path) if path.suffix in (".jsonl", ".ndjson") else _json_list(path)
    samples = [_Row(path, number, row).sample() for number, row in enumerate(rows, start=1)]
    if not samples:
        raise ValueError(f"data file `{path}` is empty: expected at least 1 row, got 0.")
    return samples


def _json_lines(path: Path) -> list[Any]:
    lines = path.read_text(encoding="utf-8").splitlines()
    return [_decoded(line, f"{path}, line {number}") for number, line in enumerate(lines, start=1) if line.strip()]


def _json_list(path: Path) -> list[Any]:
    rows = _decoded(path.read_text(encoding="utf-8"), str(path))
    if not isinstance(rows, list):
        raise ValueError(
            f"{path}: expected a list of rows, got {type(rows).__name__}. "
            "Wrap the rows in [ ]; a file with one row per line needs the suffix .jsonl."
        )
    return rows


def _decoded(text: str, where: str) -> Any:
    try:
        return json.loads(text)
    except json.JSONDecodeError as error:
        raise ValueError(f"{where}: not valid JSON: {error}. Correct the file.") from error


class _Row:
    """One row on its way to a Sample; knows where it stands so that every error can say it."""

    def __init__(self, path: Path, number: int, row: Any):
        self.path, self.number, self.row = path, number, row

    def fail(self, field: str, problem: str) -> ValueError:
        return ValueError(f"{self.path}, row {self.number}, `{field}`: {problem}")

    def sample(self) -> Sample:
        if not isinstance(self.row, Mapping):
            raise self.fail("row", f"expected an object with `messages`, got {type(self.row).__name__}.")
        messages = self.row.get("messages")
        if not isinstance(messages, list) or not messages:
            raise self.fail("messages", f"expected a list of messages, got {messages!r}.")
        parsed = [self._message(f"messages[{i}]", message) for i, message in enumerate(messages)]
        if parsed[-1]["role"] != "assistant":
            raise self.fail(
                f"messages[{len(parsed) - 1}].role",
                f"expected the last message to be the assistant's, got {parsed[-1]['role']}. Add the answer.",
            )
        self._fill_tags(parsed)
        number = self.row.get("id", f"{self.path.stem}-{self.number}")
        return Sample(str(number), parsed, self.row.get("group"), self.row.get("kind"))

    def _message(self, field: str, message: Any) -> dict[str, Any]:
        if not isinstance(message, Mapping) or message.get("role") not in _ROLES:
            role = message.get("role") if isinstance(message, Mapping) else message
            raise self.fail(f"{field}.role", f"expected one of {', '.join(_ROLES)}, got {role!r}.")
        content = message.get("content")
        if isinstance(content, str):
            return {"role": message["role"], "content": self._text_parts(content)}
        if not isinstance(content, list):
            raise self.fail(f"{field}.content", f"expected text or a list of parts, got {content!r}.")
        parts = [self._part(f"{field}.content[{i}]", part) for i, part in enumerate(content)]
        return {"role": message["role"], "content": [part for group in parts for part in group]}

    def _part(self, field: str, part: Any) -> list[dict[str, Any]]:
        type = part.get("type") if isinstance(part, Mapping) else None
        if type not in ("text", *MEDIA):
            raise self.fail(f"{field}.type", f"expected text, image, video or audio, got {type!r}.")
        if not isinstance(part.get(type), str):
            raise self.fail(f"{field}.{type}", f"expected a string, got {part.get(type)!r}.")
        if type == "text":
            return self._text_parts(part["text"])
        return [{"type": type, type: self._media_path(f"{field}.{type}", part[type])}]

    def _media_path(self, field: str, name: str) -> str:
        path = self.path.parent / name
        if not path.is_file():
            raise FileNotFoundError(
                f"{self.path}, row {self.number}, `{field}`: file `{path}` not found. "
                "Correct the path (relative ones start at the data file's folder), or remove the row."
            )
        return str(path)

    @staticmethod
    def _text_parts(text: str) -> list[dict[str, Any]]:
        """Splits text at its tags; a tag becomes a media part without a file."""
        parts = [piece for piece in _TAG.split(text) if piece]
        return [{"type": p[1:-1]} if _TAG.fullmatch(p) else {"type": "text", "text": p} for p in parts]

    def _fill_tags(self, messages: list[dict[str, Any]]) -> None:
        """Gives every tag its file from the row's lists, in reading order."""
        for type in MEDIA:
            files = self.row.get(f"{type}s") or []
            if not isinstance(files, list) or not all(isinstance(name, str) for name in files):
                raise self.fail(f"{type}s", f"expected a list of paths, got {files!r}.")
            tags = [p for m in messages for p in m["content"] if p["type"] == type and type not in p]
            if len(tags) != len(files):
                raise self.fail(
                    f"{type}s",
                    f"{len(tags)} `<{type}>` in the text, {len(files)} {type} files attached. "
                    f"Write one `<{type}>` per file.",
                )
            for i, (tag, name) in enumerate(zip(tags, files, strict=True)):
                tag[type] = self._media_path(f"{type}s[{i}]", name)
