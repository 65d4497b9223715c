"""Decodes images, recordings and videos from files; every failure names the path and what to do about it."""

from pathlib import Path

import av
import numpy as np
import soundfile
from av.audio.resampler import AudioResampler
from av.error import FFmpegError
from PIL import Image, UnidentifiedImageError

_UNKNOWN_LENGTH = (0, 0xFFFFFFFF)  # what programs that write a wav to a pipe leave in its header


def existing(path: str | Path, what: str) -> Path:
    """The path itself; raises FileNotFoundError, naming `what` was looked for, where no such file exists."""
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"{what} `{path}` not found. Correct the path, or put the file there.")
    return path


def load_image(path: str | Path) -> Image.Image:
    """An image file as RGB. Raises ValueError for a file that Pillow cannot read to its end."""
    path = existing(path, "image")
    try:
        with Image.open(path) as image:
            return image.convert("RGB")
    except (UnidentifiedImageError, OSError, SyntaxError, Image.DecompressionBombError) as error:
        raise ValueError(
            f"image `{path}` cannot be read: {error}. Open it in an image viewer; "
            "replace or convert it (PNG and JPEG are safe choices), or remove the sample."
        ) from error


def load_audio(path: str | Path, sample_rate_hz: int) -> np.ndarray:
    """A recording as float32 mono [samples] at `sample_rate_hz`; channels are averaged.

    Raises ValueError for a file that is no audio, is empty, or ends before its header says.
    """
    path = existing(path, "audio")
    try:
        waveform, file_rate_hz = soundfile.read(path, dtype="float32", always_2d=True)
        promised = max(soundfile.info(path).frames, _promised_wav_frames(path))
    except soundfile.SoundFileError as error:
        raise ValueError(
            f"audio `{path}` cannot be read: {error} Convert it to WAV or FLAC, or remove the sample."
        ) from error
    if len(waveform) < promised:
        raise ValueError(
            f"audio `{path}` is truncated: its header promises {promised} frames, the file holds "
            f"{len(waveform)}. Copy or download it again, or remove the sample."
        )
    if not len(waveform):
        raise ValueError(f"audio `{path}` is empty: expected at least 1 frame, got 0. Remove the sample.")
    return resample(waveform.mean(axis=1), file_rate_hz, sample_rate_hz)


def resample(waveform: np.ndarray, from_hz: int, to_hz: int) -> np.ndarray:
    """A mono waveform [samples] at another sample rate, float32; unchanged where the rates are equal."""
    waveform = np.ascontiguousarray(waveform, dtype=np.float32)
    if from_hz == to_hz:
        return waveform
    frame = av.AudioFrame.from_ndarray(waveform[None], format="fltp", layout="mono")
    frame.sample_rate = from_hz
    resampler = AudioResampler(format="fltp", layout="mono", rate=to_hz)
    parts = [part.to_ndarray()[0] for part in (*resampler.resample(frame), *resampler.resample(None))]
    return np.concatenate(parts)


def load_video(path: str | Path, frames: int) -> np.ndarray:
    """`frames` evenly spaced pictures of a video, uint8 [frames, height, width, 3]; a short one repeats some.

    Raises ValueError for a file without a readable picture.
    """
    path = existing(path, "video")
    if frames < 1:
        raise ValueError(f"`frames` is too small: expected at least 1, got {frames}.")
    try:
        with av.open(str(path)) as container:
            if not container.streams.video:
                raise ValueError(f"video `{path}` has no picture track. Load it as audio, or remove the sample.")
            pictures = [frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)]
    except FFmpegError as error:
        raise ValueError(f"video `{path}` cannot be read: {error}. Convert it to MP4, or remove the sample.") from error
    if not pictures:
        raise ValueError(f"video `{path}` holds no picture. Copy it again, or remove the sample.")
    chosen = np.linspace(0, len(pictures) - 1, frames).round().astype(int)
    return np.stack([pictures[index] for index in chosen])


def _promised_wav_frames(path: Path) -> int:
    """Frames that a RIFF/WAVE header declares; 0 for other formats and for headers written to a pipe.

    libsndfile silently shortens its own count to what the file holds, so the header is read here.
    """
    with path.open("rb") as file:
        if file.read(4) != b"RIFF" or file.read(8)[4:] != b"WAVE":
            return 0
        bytes_per_frame = 0
        while len(head := file.read(8)) == 8:
            name, size = head[:4], int.from_bytes(head[4:], "little")
            if name == b"data":
                return size // bytes_per_frame if bytes_per_frame and size not in _UNKNOWN_LENGTH else 0
            body = file.read(size + size % 2)
            if name == b"fmt ":
                bytes_per_frame = int.from_bytes(body[12:14], "little")
    return 0
