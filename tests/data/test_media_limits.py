"""Media from every source, upright and in the right colours, and never more decoded than is used."""

import base64
import http.server
import io
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
import soundfile
from PIL import Image

from moka_peft.data import MediaOptions, load_medium
from moka_peft.data.media import audio as audio_module
from moka_peft.data.media import load_audio, load_image, load_video
from moka_peft.data.media.video import read_clip

TONE = np.sin(2 * np.pi * 440 * np.arange(32_000) / 16_000).astype(np.float32) / 2
LEFT_RED = np.zeros((30, 60, 3), dtype=np.uint8)
LEFT_RED[:, :30] = (250, 0, 0)


def encoded(image: Image.Image, format: str, **options: Any) -> bytes:
    file = io.BytesIO()
    image.save(file, format, **options)
    return file.getvalue()


def near(image: Image.Image, place: tuple[int, int], colour: tuple[int, int, int], within: int = 6) -> bool:
    return bool(np.abs(np.array(image.getpixel(place), dtype=int) - colour).max() <= within)


def test_image_is_turned_as_its_tag_says():
    exif = Image.Exif()
    exif[0x0112] = 6  # the camera was held upright: turn right by a quarter
    content = encoded(Image.fromarray(LEFT_RED), "JPEG", exif=exif, quality=95)
    image = load_image(content)
    assert image.size == (30, 60) and near(image, (15, 10), (250, 0, 0)) and near(image, (15, 50), (0, 0, 0))


@pytest.mark.parametrize("mode", ["RGBA", "LA", "PA", "P"])
def test_transparency_is_white(mode: str):
    image = Image.new("RGBA", (4, 4), (10, 10, 10, 255))
    image.putpixel((0, 0), (0, 0, 0, 0))
    if mode == "P":
        image = image.convert("P")
        content = encoded(image, "PNG", transparency=image.getpixel((0, 0)))
    else:
        content = encoded(image.convert("LA") if mode == "PA" else image.convert(mode), "PNG")
    read = load_image(content)
    assert read.mode == "RGB" and near(read, (0, 0), (255, 255, 255)) and near(read, (3, 3), (10, 10, 10))


def test_wide_greys_keep_their_shades():
    shades = np.array([[0, 0x8000, 0xFFFF]], dtype=np.uint16)
    image = load_image(encoded(Image.fromarray(shades), "PNG"))
    assert [image.getpixel((x, 0))[0] for x in range(3)] == [0, 128, 255]  # type: ignore[index]


@pytest.mark.parametrize("format", ["JPEG", "PNG"])
def test_large_image_is_made_smaller(format: str):
    image = load_image(encoded(Image.fromarray(LEFT_RED).resize((1200, 600)), format), max_pixels=20_000)
    assert image.size == (200, 100) and near(image, (50, 50), (250, 0, 0)) and near(image, (150, 50), (0, 0, 0))
    assert load_image(encoded(Image.fromarray(LEFT_RED), format), max_pixels=20_000).size == (60, 30)


def test_large_jpeg_is_decoded_at_a_fraction(monkeypatch: pytest.MonkeyPatch):
    decoded = []
    load = Image.Image.convert
    monkeypatch.setattr(Image.Image, "convert", lambda self, *a, **k: decoded.append(self.size) or load(self, *a, **k))
    load_image(encoded(Image.fromarray(LEFT_RED).resize((1200, 600)), "JPEG"), max_pixels=20_000)
    assert decoded == [(300, 150)]


def test_medium_from_every_source(tmp_path: Path):
    content = encoded(Image.fromarray(LEFT_RED), "PNG")
    (tmp_path / "a.png").write_bytes(content)
    url = "data:image/png;base64," + base64.b64encode(content).decode()
    sources: list[Any] = [tmp_path / "a.png", str(tmp_path / "a.png"), content, bytearray(content), url, LEFT_RED]
    sources += [{"bytes": content, "path": None}, {"bytes": None, "path": str(tmp_path / "a.png")}]
    for source in [*sources, Image.open(tmp_path / "a.png")]:
        image = load_medium("image", {"type": "image", "image": source}, MediaOptions())
        assert np.array_equal(np.asarray(image), LEFT_RED)
    with pytest.raises(ValueError, match="image array is wrong: expected uint8"):
        load_medium("image", {"image": LEFT_RED / 255}, MediaOptions())


@pytest.fixture(scope="module")
def server() -> Iterator[str]:
    """An address that serves 1000 bytes of a picture, or nothing."""
    content = encoded(Image.fromarray(LEFT_RED), "PNG")

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200 if self.path == "/a.png" else 404)
            self.end_headers()
            self.wfile.write(content if self.path == "/a.png" else b"")

        def log_message(self, format: str, *args: Any) -> None:
            pass

    with http.server.HTTPServer(("127.0.0.1", 0), Handler) as listening:
        thread = threading.Thread(target=listening.serve_forever, daemon=True)
        thread.start()
        yield f"http://127.0.0.1:{listening.server_port}"
        listening.shutdown()
        thread.join()


def test_url_is_fetched_only_when_allowed(server: str):
    part = {"type": "image", "image": f"{server}/a.png"}
    image = load_medium("image", part, MediaOptions(allow_urls=True))
    assert np.array_equal(np.asarray(image), LEFT_RED)
    with pytest.raises(ValueError, match="is on the net: expected a file. Download it, or set `allow_urls: true`"):
        load_medium("image", part, MediaOptions())
    with pytest.raises(ValueError, match=r"is too large: expected at most 50 bytes.*Raise `max_url_bytes`"):
        load_medium("image", part, MediaOptions(allow_urls=True, max_url_bytes=50))
    with pytest.raises(ValueError, match=r"gone` cannot be fetched: HTTP Error 404.*Look at 127\.0\.0\.1"):
        load_medium("image", {"image": f"{server}/gone"}, MediaOptions(allow_urls=True))


@pytest.mark.parametrize("field", ["max_image_pixels", "video_frames", "max_audio_seconds", "url_timeout_seconds"])
def test_options_are_positive(field: str):
    with pytest.raises(ValueError, match=f"`{field}` is too small: expected more than 0, got 0"):
        MediaOptions(**{field: 0})


WriteVideo = Callable[..., Path]


@pytest.fixture(scope="module")
def video(tmp_path_factory: pytest.TempPathFactory) -> WriteVideo:
    """video("a.mp4") -> 80 frames at 10 a second with a key frame every 10, frame i of shade 3 * i; `sound` adds it."""

    def write(name: str, codec: str = "libx264", sound: bool = False, rotation: int = 0) -> Path:
        path = tmp_path_factory.mktemp("video") / name
        with av.open(str(path), "w") as container:
            stream = container.add_stream(codec, rate=10, options={"x264-params": "keyint=10:min-keyint=10"})
            stream.width, stream.height, stream.pix_fmt, stream.gop_size = 64, 32, "yuv420p", 10
            track = container.add_stream("aac", rate=16_000, layout="stereo") if sound else None
            for i in range(80):
                picture = np.full((32, 64, 3), 3 * i, dtype=np.uint8)
                container.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
            container.mux(stream.encode(None))
            if track is not None:
                both = np.stack([TONE, np.zeros_like(TONE)])
                frame = av.AudioFrame.from_ndarray(both, format="fltp", layout="stereo")
                frame.sample_rate = 16_000
                container.mux([*track.encode(frame), *track.encode(None)])
        return path

    return write


@pytest.mark.parametrize(
    ("name", "codec"),
    [("a.mp4", "libx264"), ("a.mp4", "mpeg4"), ("a.mkv", "libx264"), ("a.avi", "mpeg4"), ("a.ts", "libx264")],
)
def test_frames_are_those_of_a_whole_decode(video: WriteVideo, name: str, codec: str):
    path = video(name, codec)
    with av.open(str(path)) as container:
        whole = [frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)]
    for frames in (1, 3, 8, 80, 100):
        wanted = np.linspace(0, 79, frames).round().astype(int)
        assert np.array_equal(load_video(path, frames), np.stack([whole[i] for i in wanted]))
    assert np.array_equal(load_video(path.read_bytes(), 8), load_video(path, 8))


def test_only_used_frames_are_decoded(video: WriteVideo):
    path = video("a.mp4", "mpeg4")  # without frames that depend on later ones, at most 10 from key frame to key frame
    clip = read_clip(path, 2)
    assert clip.total == 80 and 2 <= clip.decoded <= 1 + 10
    assert read_clip(path, 1).decoded == 1
    assert read_clip(path, 4, max_seconds=1).decoded <= 10


def test_frames_by_rate_and_limit(video: WriteVideo):
    path = video("a.mp4")
    shades = [load_video(path, 50, fps=2).mean(axis=(1, 2, 3)), load_video(path, 4, fps=2).mean(axis=(1, 2, 3))]
    np.testing.assert_allclose(shades[0], 15 * np.arange(16), atol=3)
    np.testing.assert_allclose(shades[1], [0, 78, 159, 237], atol=3)
    limited = load_video(path, 4, max_seconds=2)
    np.testing.assert_allclose(limited.mean(axis=(1, 2, 3)), [0, 18, 39, 57], atol=3)
    assert load_video(path, 2, max_pixels=512).shape == (2, 16, 32, 3)


@pytest.mark.parametrize("from_bytes", [False, True])
def test_sound_track_of_a_video(video: WriteVideo, from_bytes: bool):
    path = video("a.mp4", sound=True)
    waveform = load_audio(path.read_bytes() if from_bytes else path, 16_000)
    assert abs(len(waveform) / 16_000 - 2) < 0.2
    peak_hz = np.abs(np.fft.rfft(waveform)).argmax() * 16_000 / len(waveform)
    assert abs(peak_hz - 440) < 2 and abs(np.abs(waveform[4000:20000]).max() - 0.25) < 0.03  # the mean of both channels
    assert len(load_audio(path, 16_000, max_seconds=0.5)) == 8_000


@pytest.mark.parametrize("format", ["WAV", "FLAC", "OGG", "MP3"])
def test_audio_is_read_only_so_far(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, format: str):
    path = tmp_path / f"a.{format.lower()}"
    soundfile.write(path, TONE, 16_000, format=format)
    read = []

    class Counting(soundfile.SoundFile):
        def read(self, frames: int = -1, *args: Any, **options: Any) -> Any:
            read.append(frames)
            return super().read(frames, *args, **options)

    monkeypatch.setattr(audio_module.soundfile, "SoundFile", Counting)
    assert load_audio(path, 16_000, max_seconds=0.5).shape == (8_000,)
    assert load_audio(path, 8_000, max_seconds=60).shape[0] >= 15_900
    assert read == [8_000, 960_000]


def test_arrays_of_several_channels_and_limits():
    options = MediaOptions(max_audio_seconds=0.5)
    part = {"type": "audio", "audio": np.stack([TONE, -TONE]), "sample_rate_hz": 16_000}
    waveform = load_medium("audio", part, options, 16_000)
    assert waveform.shape == (8_000,) and not waveform.any()
    with pytest.raises(ValueError, match="the processor has no sample rate"):
        load_medium("audio", part, options)


def test_sound_without_a_header_is_named(tmp_path: Path):
    (tmp_path / "a.raw").write_bytes(bytes(1000))
    with pytest.raises(ValueError, match=r"a\.raw` (cannot be read|has no sound track)"):
        load_audio(tmp_path / "a.raw", 16_000)
