"""What a benchmark asks: one row of its published files, ready to become a conversation."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from moka_peft.data.formats import read_row
from moka_peft.data.formats.row import MediaFolder, Row
from moka_peft.data.media.options import DEFAULTS, MediaOptions
from moka_peft.data.samples import Sample


@dataclass(frozen=True)
class Question:
    """A question with its media and what is right.

    text, reference: as the benchmark has them. images, videos, audios: paths or encoded bytes. facts: what scoring
    needs beside (subtask, choices, ...), as plain JSON data; a record keeps them. where: file and row.
    """

    id: str
    text: str
    reference: str
    images: tuple[str | bytes, ...] = ()
    videos: tuple[str | bytes, ...] = ()
    audios: tuple[str | bytes, ...] = ()
    facts: Mapping[str, Any] = field(default_factory=dict)
    where: str = ""


def ask(question: Question, prompt: str, media: MediaOptions = DEFAULTS) -> Sample:
    """The conversation that asks a question; prompt: its text, with a tag such as `<image>` for each medium.

    Raises ValueError or FileNotFoundError, naming file and row, where tags and media do not fit or a file is missing.
    """
    told = [{"role": "user", "content": prompt}, {"role": "assistant", "content": question.reference}]
    lists = {"images": [*question.images], "videos": [*question.videos], "audios": [*question.audios]}
    row = Row({"id": question.id, "messages": told, **lists}, question.where, question.id, MediaFolder(Path()))
    return read_row(row, media, "messages")
