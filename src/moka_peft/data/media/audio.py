"""Decodes recordings, and the sound tracks of videos: mono, at the rate that is asked for."""

from typing import Any, BinaryIO

import av
import numpy as np
import soundfile
from av.audio.resampler import AudioResampler
from av.error import FFmpegError

from moka_peft.data.media.opening import Encoded, Opened, open_encoded

_UNKNOWN_LENGTH = (0, 0xFFFFFFFF)  # what programs that write a wav to a pipe leave in its header


def load_audio(medium: Encoded, sample_rate_hz: int, max_seconds: float | None = None) -> np.ndarray:
    """A recording as float32 mono [samples] at `sample_rate_hz`; channels are averaged.

    With `max_seconds`, no more than that is read. Whatever soundfile does not know (m4a, webm, a video's sound
    track) FFmpeg reads. Raises ValueError for a file that is no audio, is empty, or ends before its header says.
    """
    opened = open_encoded(medium, "audio")
    try:
        waveform, file_rate_hz = _read_soundfile(opened, max_seconds)
    except (soundfile.SoundFileError, TypeError) as error:  # TypeError: .raw, whose rate no file says
        waveform, file_rate_hz = _read_container(opened, max_seconds, str(error))
    if not len(waveform):
        raise ValueError(f"{opened.name} is empty: expected at least 1 frame, got 0. Remove the sample.")
    return resample(waveform, file_rate_hz, sample_rate_hz)


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


def as_waveform(waveform: Any, from_hz: int | None, to_hz: int, max_seconds: float | None) -> np.ndarray:
    """A recording that is in memory already: a mono array [samples], or [channels, samples] to average."""
    if from_hz is None:
        raise ValueError("audio array has no `sample_rate_hz`: expected it beside `audio`. Add the rate in Hz.")
    waveform = np.asarray(waveform, dtype=np.float32)
    waveform = waveform.mean(axis=0) if waveform.ndim == 2 else waveform
    if waveform.ndim != 1 or not len(waveform):
        raise ValueError(f"audio array is wrong: expected [samples], got {list(waveform.shape)}. Give one recording.")
    return resample(waveform[: _limit(max_seconds, from_hz)], from_hz, to_hz)


def _limit(max_seconds: float | None, rate_hz: int) -> int | None:
    return round(max_seconds * rate_hz) if max_seconds else None


def _read_soundfile(opened: Opened, max_seconds: float | None) -> tuple[np.ndarray, int]:
    """A mono waveform and its rate. Raises ValueError where the file ends before its header says."""
    with soundfile.SoundFile(opened.file()) as file:
        rate_hz, limit = file.samplerate, _limit(max_seconds, file.samplerate)
        counted = file.subtype != "MPEG_LAYER_III"  # an MP3 without a count is estimated
        promised = max(file.frames, _promised_wav_frames(opened)) if counted else 0
        waveform = file.read(-1 if limit is None else limit, dtype="float32", always_2d=True)
    if len(waveform) < min(promised, promised if limit is None else limit):
        raise ValueError(
            f"{opened.name} is truncated: its header promises {promised} frames, the file holds "
            f"{len(waveform)}. Copy or download it again, or remove the sample."
        )
    return waveform.mean(axis=1), rate_hz


def _read_container(opened: Opened, max_seconds: float | None, unknown: str) -> tuple[np.ndarray, int]:
    """A mono waveform and its rate, by FFmpeg; `unknown` is what soundfile said of the file."""
    try:
        with av.open(opened.file()) as container:
            if not container.streams.audio:
                raise ValueError(
                    f"{opened.name} has no sound track. Remove the audio part (`data.media.video_sound` adds one to "
                    "every video), or the sample."
                )
            if container.streams.audio[0].codec_context is None:
                raise ValueError(f"{opened.name} has sound of an unknown kind. Convert it to WAV or FLAC.")
            return _decode_sound(container, container.streams.audio[0], max_seconds)
    except FFmpegError as error:
        raise ValueError(
            f"{opened.name} cannot be read: {unknown} Convert it to WAV or FLAC, or remove the sample."
        ) from error


def _decode_sound(container: Any, stream: Any, max_seconds: float | None) -> tuple[np.ndarray, int]:
    stream.codec_context.thread_count = 1
    rate_hz = stream.rate
    limit, found, parts = _limit(max_seconds, rate_hz), 0, []
    to_float = AudioResampler(format="fltp")  # keeps channels and rate: FFmpeg's own mono is no plain mean
    for frame in container.decode(stream):
        for part in to_float.resample(frame):
            parts.append(part.to_ndarray().mean(axis=0))  # [samples]
            found += len(parts[-1])
        if limit is not None and found >= limit:
            break
    return np.concatenate(parts or [np.zeros(0, dtype=np.float32)])[:limit], rate_hz


def _promised_wav_frames(opened: Opened) -> int:
    """Frames that a RIFF/WAVE header declares; 0 for other formats and for headers written to a pipe.

    libsndfile silently shortens its own count to what the file holds, so the header is read here.
    """
    source = opened.file()
    if isinstance(source, str):
        with open(source, "rb") as file:
            return _wav_frames(file)
    return _wav_frames(source)


def _wav_frames(file: BinaryIO) -> int:
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
