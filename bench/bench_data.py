"""Measures the data path alone: from files of one kind to what a model's processor makes of them, in samples a second.

    python bench/bench_data.py        # two minutes on a CPU

Generates its files: JPEG of 1024 x 1024 pixels, wav of 10 s, mp4 of 10 s. Per kind: decoding, the processor, and both
in a DataLoader with no worker and with one; and how much of each file is decoded. The processors are those of
Qwen2-VL (Pillow) and Whisper. Writes bench/results/data.json.
"""

import json
import sys
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import av
import numpy as np
import soundfile
import torch
from meter import Meter
from PIL import Image
from torch.utils.data import DataLoader
from transformers import Qwen2VLImageProcessorPil, WhisperFeatureExtractor

from moka_peft.cli.env import environment
from moka_peft.data import MediaOptions, load_medium
from moka_peft.data.media import images
from moka_peft.data.media.audio import load_audio
from moka_peft.data.media.video import read_clip

SEED, FILES, SECONDS, RATE_HZ, FPS, SIDE = 0, 24, 10, 16_000, 25, 1024
SMALL = 512 * 512  # pixels
RESULT = Path(__file__).parent / "results" / "data.json"


@dataclass(frozen=True)
class Items:
    """A dataset of one kind's files, which are decoded, processed, or both."""

    paths: list[Path]
    kind: str
    options: MediaOptions
    process: Callable[[Any], Any] | None

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, index: int) -> int:
        medium = load_medium(self.kind, {self.kind: self.paths[index]}, self.options, RATE_HZ)
        if self.process is not None:
            self.process(medium)
        return index  # what a worker sends back is not measured


def write_image(path: Path, rng: np.random.Generator) -> None:
    """A picture with as much detail as a photograph: smooth shapes and some grain."""
    shapes = Image.fromarray(rng.integers(0, 255, (24, 24, 3), dtype=np.uint8)).resize((SIDE, SIDE), Image.BICUBIC)
    grain = rng.normal(0, 6, (SIDE, SIDE, 3))
    Image.fromarray((np.asarray(shapes) + grain).clip(0, 255).astype(np.uint8)).save(path, quality=90)


def write_audio(path: Path, rng: np.random.Generator) -> None:
    soundfile.write(path, rng.normal(0, 0.1, SECONDS * RATE_HZ).astype(np.float32), RATE_HZ)


def write_video(path: Path, rng: np.random.Generator) -> None:
    """640 x 360 at 25 frames a second, shapes that move; a key frame every 2 seconds at the latest."""
    shapes = Image.fromarray(rng.integers(0, 255, (9, 64, 3), dtype=np.uint8)).resize((1600, 360), Image.BICUBIC)
    scene = np.asarray(shapes)
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=FPS, options={"preset": "veryfast"})
        stream.width, stream.height, stream.pix_fmt, stream.gop_size = 640, 360, "yuv420p", 2 * FPS
        for i in range(SECONDS * FPS):
            picture = np.ascontiguousarray(scene[:, 3 * i : 3 * i + 640])
            container.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
        container.mux(stream.encode(None))


def process_frames(processor: Any, frames: Any) -> Any:
    """Each frame as a picture; whichever form `load_medium` gives frames in."""
    return processor([Image.fromarray(frame) for frame in getattr(frames, "frames", frames)], return_tensors="pt")


def measure(items: Items, workers: int) -> float:
    """Samples a second of one pass over all files, after a pass over a few that starts whatever starts late."""
    loader = DataLoader(items, batch_size=1, num_workers=workers, persistent_workers=workers > 0)  # type: ignore
    for _, _ in zip(loader, range(3), strict=False):
        pass
    meter = Meter("cpu")
    meter.run(lambda: list(loader))
    return round(len(items) / meter.seconds[0], 2)


def measure_kind(folder: Path, kind: str, options: MediaOptions, process: Callable[[Any], Any]) -> dict[str, Any]:
    paths = sorted(folder.glob(f"{kind}-*"))
    decode = Items(paths, kind, options, None)
    media = [load_medium(kind, {kind: path}, options, RATE_HZ) for path in paths[:8]]
    meter = Meter("cpu")
    meter.run(lambda: [process(medium) for medium in media])
    whole = Items(paths, kind, options, process)
    return {
        "decode_samples_per_second": measure(decode, 0),
        "processor_samples_per_second": round(len(media) / meter.seconds[0], 2),
        "samples_per_second": {f"{workers} workers": measure(whole, workers) for workers in (0, 1)},
    }


def count_used(folder: Path) -> dict[str, Any]:
    """How much of a file of each kind is decoded, under limits and without."""
    video, audio = folder / "video-00.mp4", folder / "audio-00.wav"
    settings = {
        "8 frames": dict(frames=8),
        "1 frame": dict(frames=1),
        "2 frames a second, at most 8": dict(frames=8, fps=2.0),
        "8 frames of 2 seconds": dict(frames=8, max_seconds=2.0),
    }
    clips = {name: read_clip(video, **options) for name, options in settings.items()}
    return {
        "video_frames_decoded": {n: {"decoded": clip.decoded, "in_file": clip.total} for n, clip in clips.items()},
        "audio_seconds_read": {
            f"limit {limit}": {"read": count_read(audio, limit) / RATE_HZ, "in_file": SECONDS} for limit in (None, 2.0)
        },
        "image_pixels_decoded": {
            f"limit {limit}": {"decoded": count_pixels(folder / "image-00.jpg", limit), "in_file": SIDE * SIDE}
            for limit in (None, SMALL, SMALL // 4)
        },
    }


def count_read(path: Path, max_seconds: float | None) -> int:
    """Frames that are read from a sound file: how far its position moved."""
    reached = []

    class Watched(soundfile.SoundFile):
        def close(self) -> None:
            if not self.closed:
                reached.append(self.tell())
            super().close()

    original, soundfile.SoundFile = soundfile.SoundFile, Watched
    try:
        load_audio(path, RATE_HZ, max_seconds)
    finally:
        soundfile.SoundFile = original
    return max(reached)


def count_pixels(path: Path, max_pixels: int | None) -> int:
    """Pixels that the decoder gives out, before they are made fewer."""
    sizes = []

    def watch(image: Image.Image, limit: int | None) -> Image.Image:
        sizes.append(image.width * image.height)
        return original(image, limit)

    original, images.upright_rgb = images.upright_rgb, watch
    try:
        images.load_image(path, max_pixels)
    finally:
        images.upright_rgb = original
    return sizes[0]


def decode_all_frames(folder: Path) -> float:
    """Videos a second where every frame is decoded and made RGB: what choosing frames is compared with."""
    paths = sorted(folder.glob("video-*"))[:6]

    def work() -> None:
        for path in paths:
            with av.open(str(path)) as container:
                pictures = [frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)]
            np.stack([pictures[i] for i in np.linspace(0, len(pictures) - 1, 8).round().astype(int)])

    meter = Meter("cpu")
    meter.run(work)
    return round(len(paths) / meter.seconds[0], 2)


def main() -> None:
    """Generates, measures, prints and records."""
    torch.set_num_threads(1)
    rng = np.random.default_rng(SEED)
    vision, hearing = Qwen2VLImageProcessorPil(), WhisperFeatureExtractor(feature_size=128, chunk_length=SECONDS)
    see, watch = partial(vision, return_tensors="pt"), partial(process_frames, vision)
    hear = partial(hearing, sampling_rate=RATE_HZ, return_tensors="pt")
    runs = {
        "image": ("image", MediaOptions(), see),
        f"image, at most {SMALL} pixels": ("image", MediaOptions(max_image_pixels=SMALL), see),
        "audio": ("audio", MediaOptions(), hear),
        "audio, at most 2 s": ("audio", MediaOptions(max_audio_seconds=2.0), hear),
        "video, 8 frames": ("video", MediaOptions(), watch),
        "video, 8 frames of at most 2 s": ("video", MediaOptions(max_video_seconds=2.0), watch),
    }
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for kind, ending, write in (
            ("image", "jpg", write_image), ("audio", "wav", write_audio), ("video", "mp4", write_video),
        ):  # fmt: skip
            for number in range(FILES):
                write(folder / f"{kind}-{number:02}.{ending}", rng)
        found = {what: measure_kind(folder, *run) for what, run in runs.items()}
        found["video, 8 frames"]["decode_all_frames_samples_per_second"] = decode_all_frames(folder)
        used = count_used(folder)
    for what, facts in found.items():
        print(f"{what:32} {facts}")
    print(json.dumps(used, indent=2))
    record = {
        "environment": environment(),
        "command": " ".join(["python", "bench/bench_data.py", *sys.argv[1:]]),
        "seed": SEED,
        "files": {"count": FILES, "image": f"JPEG {SIDE} x {SIDE}", "audio": f"wav {SECONDS} s at {RATE_HZ} Hz",
                  "video": f"H.264 640 x 360, {SECONDS} s at {FPS} frames a second"},
        "throughput": found,
        "decoded_of_file": used,
    }  # fmt: skip
    RESULT.write_text(json.dumps(record, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
