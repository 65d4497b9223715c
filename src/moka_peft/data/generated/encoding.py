"""Writes media in the formats that datasets are published in."""

from pathlib import Path
from typing import Any

import av
import numpy as np
import soundfile
from av.codec import Codec
from PIL import Image

RATE_HZ = 16_000
FRAMES_PER_SECOND = 8
_SOUND_BLOCK = 1024  # samples of an AAC frame


def write_picture(path: Path, picture: np.ndarray) -> None:
    """A JPEG of a picture, uint8 [H, W, 3]."""
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(picture).save(path, quality=90)


def write_sound(path: Path, waveform: np.ndarray) -> None:
    """A recording, float32 [samples] at 16 kHz, in the format of its name: .wav, .flac or .mp3."""
    path.parent.mkdir(parents=True, exist_ok=True)
    soundfile.write(path, waveform, RATE_HZ, format=path.suffix[1:].upper())


def write_video(path: Path, frames: np.ndarray, waveform: np.ndarray) -> None:
    """An MP4 of frames, uint8 [T, H, W, 3] at 8 a second, with sound, float32 [samples] at 16 kHz."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with av.open(str(path), "w") as container:
        pictures: Any = container.add_stream(codec := _video_codec(), rate=FRAMES_PER_SECOND)
        pictures.options = {"preset": "ultrafast"} if codec == "libx264" else {}  # others gave other bytes now and then
        pictures.height, pictures.width = frames.shape[1:3]
        pictures.pix_fmt, pictures.codec_context.thread_count = "yuv420p", 1
        sound: Any = container.add_stream("aac", rate=RATE_HZ, layout="mono")
        for frame in frames:
            container.mux(pictures.encode(av.VideoFrame.from_ndarray(frame, format="rgb24")))
        container.mux(pictures.encode(None))
        for start in range(0, len(waveform), _SOUND_BLOCK):
            part = np.zeros((1, _SOUND_BLOCK), dtype=np.float32)
            part[0, : len(waveform) - start] = waveform[start : start + _SOUND_BLOCK]
            block = av.AudioFrame.from_ndarray(part, format="fltp", layout="mono")
            block.sample_rate, block.pts = RATE_HZ, start
            container.mux(sound.encode(block))
        container.mux(sound.encode(None))


def _video_codec() -> str:
    """H.264 where FFmpeg was built with it, else MPEG-4."""
    try:
        Codec("libx264", "w")
    except ValueError:
        return "mpeg4"
    return "libx264"
