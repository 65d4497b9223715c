"""Frames of a video with their times, which some processors write into the text or give to the model."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

_TICKS_PER_SECOND = 1000


@dataclass(frozen=True)
class TimedFrames:
    """Frames [T, H, W, 3] and the second at which each is shown."""

    frames: Any
    seconds: Sequence[float]


def timed(frames: Any, fps: float) -> TimedFrames:
    """Frames of which `fps` are shown in a second, from 0 on."""
    return TimedFrames(frames, [index / fps for index in range(len(frames))])


def video_keywords(processor: Any, videos: Sequence[Any]) -> dict[str, Any]:
    """The keywords of a processor's call for frames that are chosen already, timed or not.

    Raises ValueError where some are timed and others are not: the processor would make times up.
    """
    timed = [video for video in videos if isinstance(video, TimedFrames)]
    keywords: dict[str, Any] = {"videos": [v.frames if isinstance(v, TimedFrames) else v for v in videos]}
    if getattr(processor, "video_processor", None) is None:
        return keywords
    if timed and len(timed) < len(videos):
        raise ValueError(
            f"{len(timed)} of {len(videos)} videos of a batch have times: expected all or none. Give `fps` with each."
        )
    options: dict[str, Any] = {"do_sample_frames": False}
    if timed:
        options["video_metadata"] = [_metadata(video) for video in timed]
    return {**keywords, "videos_kwargs": options}


def _metadata(video: TimedFrames) -> dict[str, Any]:
    """What transformers' video processors read times from: frame numbers of a video with a frame each millisecond."""
    ticks = [round(second * _TICKS_PER_SECOND) for second in video.seconds]
    step = ticks[1] - ticks[0] if len(ticks) > 1 else _TICKS_PER_SECOND
    total = ticks[-1] + step
    return {
        "total_num_frames": total,
        "fps": float(_TICKS_PER_SECOND),
        "duration": total / _TICKS_PER_SECOND,
        "frames_indices": ticks,
    }
