"""Decodes videos: the frames that are asked for, and no other where a key frame lies before them."""

import math
from bisect import bisect_right
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import av
import numpy as np
from av.error import FFmpegError

from moka_peft.data.media.opening import Encoded, Opened, open_encoded

_SHORT_SECONDS = 1.0  # by how much a stream may end before its header says: the last frame's own time and rounding


@dataclass(frozen=True)
class Clip:
    """Decoded frames, uint8 [frames, height, width, 3], the second at which each is shown, counted from the first
    picture of the file, and what they cost: frames decoded, frames there are."""

    frames: np.ndarray
    seconds: list[float]
    decoded: int
    total: int


@dataclass(frozen=True)
class _Index:
    """When a stream's frames are shown and which of them are key frames, in the stream's unit of time, ascending."""

    times: list[int]
    keys: list[int]
    total: int


def load_video(
    medium: Encoded,
    frames: int = 8,
    *,
    fps: float | None = None,
    max_seconds: float | None = None,
    max_pixels: int | None = None,
) -> np.ndarray:
    """Pictures of a video, uint8 [frames, height, width, 3], evenly spaced from the first to the last.

    Without `fps`, exactly `frames` of them, of which a short video repeats some; with it, one every 1 / fps
    seconds, at most `frames`. Raises ValueError for a file without a readable picture.
    """
    return read_clip(medium, frames, fps=fps, max_seconds=max_seconds, max_pixels=max_pixels).frames


def read_clip(
    medium: Encoded,
    frames: int = 8,
    *,
    fps: float | None = None,
    max_seconds: float | None = None,
    max_pixels: int | None = None,
) -> Clip:
    """What `load_video` gives, with the number of frames that had to be decoded for it."""
    if frames < 1:
        raise ValueError(f"`frames` is too small: expected at least 1, got {frames}.")
    opened = open_encoded(medium, "video")
    try:
        with av.open(opened.file()) as container:
            if not container.streams:
                raise ValueError(f"{opened.name} cannot be read: it has no track. Convert it, or remove the sample.")
            if not container.streams.video:
                raise ValueError(f"{opened.name} has no picture track. Load it as audio, or remove the sample.")
            stream = container.streams.video[0]
            if stream.codec_context is None:
                raise ValueError(f"{opened.name} has pictures of an unknown kind. Convert it to MP4.")
            index = _index(container, stream, max_seconds, opened)
            unit = float(stream.time_base or 1)
            wanted = _chosen(index.times, unit, frames, fps)
            pictures, decoded = _decode(container, stream, index.keys, sorted(set(wanted)), max_pixels)
        if not set(wanted) <= set(pictures):  # formats without an index (MPEG-TS) may jump too far
            with av.open(opened.file()) as container:
                pictures, more = _decode(container, container.streams.video[0], (), sorted(set(wanted)), max_pixels)
                decoded += more
    except FFmpegError as error:
        raise ValueError(f"{opened.name} cannot be read: {error}. Convert it to MP4, or remove the sample.") from error
    if missing := set(wanted) - set(pictures):
        raise ValueError(
            f"{opened.name} is damaged: {len(missing)} of {len(set(wanted))} frames cannot be decoded. "
            "Copy it again, or remove the sample."
        )
    seconds = [(time - index.times[0]) * unit for time in wanted]
    return Clip(np.stack([pictures[time] for time in wanted]), seconds, decoded, index.total)


def _index(container: Any, stream: Any, max_seconds: float | None, opened: Opened) -> _Index:
    """Reads the packets up to the limit without decoding them. Raises ValueError where they end too soon."""
    unit, times, keys, start = float(stream.time_base or 1), [], [], None
    for packet in container.demux(stream):
        time = packet.pts if packet.pts is not None else packet.dts
        if time is None:
            continue  # the empty packet at the end
        if packet.is_corrupt:
            raise ValueError(f"{opened.name} is truncated. Copy or download it again, or remove the sample.")
        start = time if start is None else start
        if max_seconds and packet.dts is not None and (packet.dts - start) * unit > max_seconds + 1:
            break  # one second later than shown, as frames may be stored in another order
        times.append(time)
        if packet.is_keyframe:
            keys.append(time)
    else:
        _check_whole(stream, times, opened)
    if not times:
        raise ValueError(f"{opened.name} holds no picture. Copy it again, or remove the sample.")
    times, total = sorted(times), stream.frames or len(times)
    limit = times[0] + max_seconds / unit if max_seconds else math.inf
    return _Index([time for time in times if time < limit], sorted(keys) or times[:1], total)


def _check_whole(stream: Any, times: Sequence[int], opened: Opened) -> None:
    if not times or stream.duration is None:
        return
    unit = float(stream.time_base)
    promised, found = stream.duration * unit, (max(times) - min(times)) * unit
    if found + _SHORT_SECONDS < promised and len(times) < (stream.frames or math.inf):
        raise ValueError(
            f"{opened.name} is truncated: its header promises {promised:.1f} seconds, the file holds {found:.1f}. "
            "Copy or download it again, or remove the sample."
        )


def _chosen(times: Sequence[int], unit: float, frames: int, fps: float | None) -> list[int]:
    """The times of the frames to take."""
    if fps is None:
        return [times[i] for i in np.linspace(0, len(times) - 1, frames).round().astype(int)]
    seconds = (times[-1] - times[0]) * unit
    count = int(seconds * fps + 1e-6) + 1
    if count > frames:
        return _chosen(times, unit, frames, None)
    asked = times[0] + np.arange(count) / (fps * unit) + 0.5  # half a unit, for times that do not fit it
    return [times[bisect_right(times, time) - 1] for time in asked]


def _decode(
    container: Any, stream: Any, keys: Sequence[int], wanted: Sequence[int], max_pixels: int | None
) -> tuple[dict[int, np.ndarray], int]:
    """The frames shown at the `wanted` times, by time, and how many were decoded; jumps to `keys` if there are."""
    stream.codec_context.thread_count = 1  # the workers of a DataLoader are the threads
    pictures: dict[int, np.ndarray] = {}
    decoded, position, frames = 0, None, _frames(container, stream)
    for time in wanted:
        key = keys[max(0, bisect_right(keys, time) - 1)] if keys else None
        if key is not None and (position is None or key > position):
            container.seek(key, stream=stream)
            frames = _frames(container, stream)
        for position, frame in frames:
            decoded += 1
            if position >= time:
                if position == time:
                    pictures[time] = _picture(frame, max_pixels)
                break
    return pictures, decoded


def _frames(container: Any, stream: Any) -> Iterator[tuple[int, Any]]:
    for frame in container.decode(stream):
        time = frame.pts if frame.pts is not None else frame.dts
        if time is not None:
            yield time, frame


def _picture(frame: Any, max_pixels: int | None) -> np.ndarray:
    """An upright RGB picture [height, width, 3] within the limit."""
    width, height = frame.width, frame.height
    if max_pixels and width * height > max_pixels:
        scale = math.sqrt(max_pixels / (width * height))
        width, height = max(1, int(width * scale)), max(1, int(height * scale))
    picture = frame.to_ndarray(format="rgb24", width=width, height=height)
    return np.ascontiguousarray(np.rot90(picture, round(getattr(frame, "rotation", 0) / 90)))
