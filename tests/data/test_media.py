"""Decoding: what comes out of good files, and what is said about bad ones."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import soundfile
from PIL import Image

from moka_peft.data.media import load_audio, load_image, load_video, resample

TONE = np.sin(2 * np.pi * 440 * np.arange(16_000) / 16_000).astype(np.float32) / 2


def test_image_is_rgb(tmp_path: Path):
    Image.fromarray(np.full((4, 6), 200, dtype=np.uint8)).save(tmp_path / "grey.png")
    image = load_image(tmp_path / "grey.png")
    assert image.mode == "RGB" and image.size == (6, 4) and image.getpixel((0, 0)) == (200, 200, 200)


def test_unreadable_image_is_named(tmp_path: Path):
    (tmp_path / "notes.png").write_text("not a picture")
    with pytest.raises(ValueError, match=r"image `.*notes\.png` cannot be read.*replace or convert it"):
        load_image(tmp_path / "notes.png")


def test_torn_image_is_named(tmp_path: Path):
    noise = np.random.default_rng(0).integers(0, 255, (64, 64, 3), dtype=np.uint8)
    Image.fromarray(noise).save(tmp_path / "torn.png")
    content = (tmp_path / "torn.png").read_bytes()
    (tmp_path / "torn.png").write_bytes(content[: len(content) // 2])
    with pytest.raises(ValueError, match=r"torn\.png` cannot be read"):
        load_image(tmp_path / "torn.png")


@pytest.mark.parametrize(
    ("load", "what"),
    [
        (load_image, "image"),
        (lambda path: load_audio(path, 16_000), "audio"),
        (lambda path: load_video(path, 2), "video"),
    ],
)
def test_missing_file_is_named(tmp_path: Path, load, what: str):
    with pytest.raises(FileNotFoundError, match=rf"{what} `.*gone\.bin` not found. Correct the path"):
        load(tmp_path / "gone.bin")


def test_audio_is_mono_at_the_asked_rate(tmp_path: Path):
    soundfile.write(tmp_path / "stereo.wav", np.stack([TONE, np.zeros_like(TONE)], axis=1), 16_000)
    same = load_audio(tmp_path / "stereo.wav", 16_000)
    np.testing.assert_allclose(same, TONE / 2, atol=1e-4)  # 16-bit samples, the mean of both channels
    assert load_audio(tmp_path / "stereo.wav", 8_000).shape == (8_000,)


@pytest.mark.parametrize("rate_hz", [8_000, 22_050, 44_100])
def test_resampling_keeps_the_pitch(rate_hz: int):
    waveform = resample(TONE, 16_000, rate_hz)
    assert abs(len(waveform) - rate_hz) <= 2 and waveform.dtype == np.float32
    peak_hz = np.abs(np.fft.rfft(waveform)).argmax() * rate_hz / len(waveform)
    assert abs(peak_hz - 440) < 1.5


@pytest.mark.parametrize("keep", [0.5, 0.02])
def test_truncated_wav_is_named(tmp_path: Path, keep: float):
    soundfile.write(tmp_path / "cut.wav", TONE, 16_000)
    content = (tmp_path / "cut.wav").read_bytes()
    (tmp_path / "cut.wav").write_bytes(content[: int(len(content) * keep)])
    with pytest.raises(ValueError, match=r"cut\.wav` is truncated: its header promises 16000 frames, the file holds"):
        load_audio(tmp_path / "cut.wav", 16_000)


def test_wav_written_to_a_pipe_is_read(tmp_path: Path):
    soundfile.write(tmp_path / "pipe.wav", TONE, 16_000)
    content = bytearray((tmp_path / "pipe.wav").read_bytes())
    size_at = content.index(b"data") + 4
    content[size_at : size_at + 4] = b"\xff\xff\xff\xff"
    (tmp_path / "pipe.wav").write_bytes(content)
    assert load_audio(tmp_path / "pipe.wav", 16_000).shape == (16_000,)


def test_unreadable_and_empty_audio_are_named(tmp_path: Path):
    (tmp_path / "text.wav").write_text("not a recording")
    with pytest.raises(ValueError, match=r"text\.wav` cannot be read.*Convert it to WAV"):
        load_audio(tmp_path / "text.wav", 16_000)
    soundfile.write(tmp_path / "empty.wav", TONE[:0], 16_000)
    with pytest.raises(ValueError, match=r"empty\.wav` is empty"):
        load_audio(tmp_path / "empty.wav", 16_000)


def test_video_frames_are_evenly_spaced(fade: Callable[[list[int]], Path]):
    path = fade([20, 60, 100, 140, 180])
    frames = load_video(path, 3)
    assert frames.shape == (3, 16, 32, 3) and frames.dtype == np.uint8
    np.testing.assert_allclose(frames.mean(axis=(1, 2, 3)), [20, 100, 180], atol=6)  # the codec is lossy
    assert load_video(path, 8).shape == (8, 16, 32, 3)


def test_bad_video_is_named(tmp_path: Path):
    (tmp_path / "text.mp4").write_text("not a video")
    with pytest.raises(ValueError, match=r"video `.*text\.mp4` cannot be read"):
        load_video(tmp_path / "text.mp4", 2)
    soundfile.write(tmp_path / "sound.wav", TONE, 16_000)
    with pytest.raises(ValueError, match="has no picture track"):
        load_video(tmp_path / "sound.wav", 2)
    with pytest.raises(ValueError, match="`frames` is too small"):
        load_video(tmp_path / "sound.wav", 0)


def test_sound_of_an_unknown_codec_is_named(tmp_path: Path):
    soundfile.write(tmp_path / "odd.wav", TONE, 16_000)
    content = bytearray((tmp_path / "odd.wav").read_bytes())
    content[20:22] = b"\x99\x99"  # the codec's number
    (tmp_path / "odd.wav").write_bytes(content)
    with pytest.raises(ValueError, match=r"odd\.wav` has sound of an unknown kind"):
        load_audio(tmp_path / "odd.wav", 16_000)


def test_pictures_of_an_unknown_codec_are_named(fade: Callable[[list[int]], Path]):
    video = fade([20, 60])
    video.write_bytes(video.read_bytes().replace(b"mp4v", b"zzzz").replace(b"esds", b"zzzz"))
    with pytest.raises(ValueError, match=r"fade\.mp4` has pictures of an unknown kind"):
        load_video(video)
