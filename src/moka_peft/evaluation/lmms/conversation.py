"""What lmms-eval asks, messages or a text with its media, as a sample that our collator renders as in training."""

from collections.abc import Iterable, Mapping
from pathlib import PurePath
from typing import Any

import numpy as np
from PIL import Image

from moka_peft.data.formats.parts import TAG
from moka_peft.data.samples import MEDIA, Sample, parts_of

PICTURES = (".bmp", ".gif", ".jpeg", ".jpg", ".png", ".tiff", ".webp")
RECORDINGS = (".aac", ".flac", ".m4a", ".mp3", ".ogg", ".opus", ".wav")
CUTS = ("start_time", "end_time", "video_start", "video_end")
Part = dict[str, Any]


def sample_of(id: str, messages: Iterable[Mapping[str, Any]]) -> Sample:
    """A sample that asks what the messages ask; its own answer is empty.

    messages: lmms-eval's `{"role", "content"}`, with parts `{"type", "text"}` and `{"type", "url"}`, whose `url` is a
    path, a picture, frames or a recording. Raises ValueError for a medium of another form.
    """
    turns = [{"role": told["role"], "content": _placed([_part(part) for part in parts_of(told)])} for told in messages]
    return Sample(id, [*turns, {"role": "assistant", "content": ""}])


def message_of(text: str, media: Iterable[Any]) -> dict[str, Any]:
    """A user's message in lmms-eval's form: the media, each of the kind that it is, then the text."""
    parts = [{"type": _kind(medium), "url": medium} for medium in media]
    return {"role": "user", "content": [*parts, {"type": "text", "text": text}]}


def _kind(medium: Any) -> str:
    if isinstance(medium, Mapping) and medium.get("type") in MEDIA:
        return medium["type"]
    ending = PurePath(medium).suffix.lower() if isinstance(medium, str) else ""
    if isinstance(medium, Image.Image) or ending in PICTURES:
        return "image"
    return "audio" if ending in RECORDINGS or _is_recording(medium) else "video"


def _part(part: Mapping[str, Any]) -> Part:
    """A part of one of lmms-eval's messages as a part of ours."""
    kind = part["type"]
    if kind == "text":
        return {"type": "text", "text": part["text"]}
    medium = next((part[key] for key in ("url", kind) if part.get(key) is not None), None)
    if kind not in MEDIA or medium is None:
        raise ValueError(f"part of a message: expected text, image, video or audio with `url`, got {str(part)[:200]}.")
    parts = [part, medium] if isinstance(medium, Mapping) else [part]
    if any(told.get(key) is not None for told in parts for key in CUTS):
        raise ValueError(f"{kind} is to be cut: expected a whole one, got {str(part)[:200]}. Cut the file itself.")
    if _is_recording(medium):  # lmms-eval takes a recording in memory for a video
        return _recording(medium)
    if isinstance(medium, Mapping):
        medium = medium.get("url") or medium.get("path") or medium
    return {"type": kind, kind: _frames(medium) if kind == "video" else medium}


def _is_recording(medium: Any) -> bool:
    """Whether it is one in memory: `{"array", "sampling_rate"}`, or the decoder that `datasets` gives in its place."""
    return (isinstance(medium, Mapping) and medium.get("array") is not None) or hasattr(medium, "get_all_samples")


def _recording(medium: Any) -> Part:
    if isinstance(medium, Mapping):
        return {"type": "audio", "audio": np.asarray(medium["array"]), "sample_rate_hz": medium["sampling_rate"]}
    found = medium.get_all_samples()  # [channels, samples]
    return {"type": "audio", "audio": np.asarray(found.data), "sample_rate_hz": int(found.sample_rate)}


def _frames(medium: Any) -> Any:
    """A video; a list of pictures becomes its frames, uint8 [F, H, W, 3]."""
    if isinstance(medium, list | tuple) and medium and all(isinstance(one, Image.Image) for one in medium):
        return np.stack([np.asarray(one.convert("RGB")) for one in medium])
    return medium


def _placed(parts: list[Part]) -> list[Part]:
    """The parts, with media at the tags (`<image>`) of their kind where the texts have one for each of them."""
    for kind in MEDIA:
        media = [part for part in parts if part["type"] == kind]
        pieces = [piece for part in parts if part["type"] != kind for piece in _split(part)]
        tags = [piece["type"] == "text" and piece["text"] == f"<{kind}>" for piece in pieces]
        if media and sum(tags) == len(media):
            rest = iter(media)
            parts = [next(rest) if is_tag else piece for piece, is_tag in zip(pieces, tags, strict=True)]
    return parts


def _split(part: Part) -> list[Part]:
    if part["type"] != "text":
        return [part]
    return [{"type": "text", "text": piece} for piece in TAG.split(part["text"]) if piece]
