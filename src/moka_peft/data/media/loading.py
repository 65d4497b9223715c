"""Loads one medium of a sample as a processor takes it, whatever form it comes in."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from moka_peft.data.media.audio import as_waveform, load_audio
from moka_peft.data.media.images import as_image, load_image
from moka_peft.data.media.opening import decode_data_url, fetch, is_url
from moka_peft.data.media.options import MediaOptions
from moka_peft.data.media.timed_frames import TimedFrames, timed
from moka_peft.data.media.video import read_clip
from moka_peft.data.samples import Sample, parts_of


def load_medium(type: str, part: Mapping[str, Any], options: MediaOptions, sample_rate_hz: int | None = None) -> Any:
    """One content part's medium: an RGB image, frames uint8 [F, H, W, 3] (TimedFrames where their times are known: of
    a file, or of frames with `fps`), or a waveform [samples].

    sample_rate_hz: the rate that waveforms are given in; needed for audio alone. Raises ValueError or OSError,
    naming the file, where it cannot be decoded.
    """
    medium = _encoded(part[type], options)
    is_file = isinstance(medium, str | Path | bytes)
    if type == "image":
        load = load_image if is_file else as_image
        return load(medium, options.max_image_pixels)
    if type == "video":
        if is_file:
            return _load_video(medium, options)
        return timed(medium, part["fps"]) if "fps" in part else medium
    if sample_rate_hz is None:
        raise ValueError("the processor has no sample rate: expected one that takes audio. Use such a model.")
    if is_file:
        return load_audio(medium, sample_rate_hz, options.max_audio_seconds)
    return as_waveform(medium, part.get("sample_rate_hz"), sample_rate_hz, options.max_audio_seconds)


def load_media(sample: Sample, type: str, options: MediaOptions, sample_rate_hz: int | None = None) -> list[Any]:
    """A sample's media of one type, in reading order; an error says where in which row the medium stands."""
    loaded = []
    for i, message in enumerate(sample.messages):
        for j, part in enumerate(parts_of(message)):
            if part["type"] == type:
                try:
                    loaded.append(load_medium(type, part, options, sample_rate_hz))
                except (OSError, ValueError) as error:
                    problem = f"{sample.where or f'sample `{sample.id}`'}, `messages[{i}].content[{j}].{type}`: {error}"
                    raise (OSError if isinstance(error, OSError) else ValueError)(problem) from error
    return loaded


def _encoded(medium: Any, options: MediaOptions) -> Any:
    """Bytes for what is written as a URL or as Hugging Face's `{bytes, path}`; else the medium itself."""
    if isinstance(medium, Mapping) and {"bytes", "path"} & set(medium):
        return medium["bytes"] if medium.get("bytes") is not None else medium["path"]
    if isinstance(medium, bytearray | memoryview):
        return bytes(medium)
    if isinstance(medium, str) and medium.startswith("data:"):
        return decode_data_url(medium)
    return fetch(str(medium), options) if is_url(medium) else medium


def _load_video(medium: Any, options: MediaOptions) -> TimedFrames:
    clip = read_clip(
        medium,
        options.video_frames,
        fps=options.video_fps,
        max_seconds=options.max_video_seconds,
        max_pixels=options.max_video_pixels,
    )
    return TimedFrames(clip.frames, clip.seconds)
