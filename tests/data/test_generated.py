"""Made-up datasets: real files, the same every time, with answers that vary."""

import hashlib
from pathlib import Path

import av
import pytest
import soundfile
from PIL import Image

from moka_peft.data import load_samples
from moka_peft.data.datasets import DATASETS
from moka_peft.data.generated import write_generated


def digests(folder: Path) -> dict[str, str]:
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    return {str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


@pytest.mark.parametrize("name", DATASETS)
def test_files_depend_on_the_arguments_alone(tmp_path: Path, name: str):
    for folder, seed in (("a", 1), ("b", 1), ("c", 2)):
        write_generated(name, tmp_path / folder, samples=2, seed=seed)
    assert digests(tmp_path / "a") == digests(tmp_path / "b") != digests(tmp_path / "c")


@pytest.mark.parametrize("name", DATASETS)
def test_answers_vary_and_splits_share_a_folder(tmp_path: Path, name: str):
    splits = DATASETS[name].splits[:2]
    for split in splits:
        write_generated(name, tmp_path, samples=8, split=split)
    for split in splits:
        samples = load_samples({"name": name, "folder": str(tmp_path), "split": split})
        assert len(samples) >= 8 and len({sample.answer for sample in samples}) >= 3


def test_media_are_in_their_real_formats(tmp_path: Path):
    write_generated("ave", tmp_path, samples=1, reasoning=True)
    (video,), (sound,) = tmp_path.rglob("*.mp4"), tmp_path.rglob("*.mp3")
    with av.open(str(video)) as container:
        assert container.streams.video[0].codec_context.name in ("h264", "mpeg4")
        assert container.streams.audio[0].codec_context.name == "aac"
        assert (container.streams.video[0].width, container.streams.video[0].height) == (64, 48)
    assert soundfile.info(sound).format == "MP3"
    write_generated("audiocaps", tmp_path, samples=3)
    found = {soundfile.info(path).format for path in (tmp_path / "audio").rglob("*.*")}
    assert found == {"WAV", "FLAC", "MP3"}
    write_generated("a_okvqa", tmp_path, samples=1)
    with Image.open(next(tmp_path.rglob("*.jpg"))) as image:
        assert image.format == "JPEG"


def test_wrong_arguments_are_named(tmp_path: Path):
    with pytest.raises(ValueError, match="`name` is no dataset: expected one of music_avqa, .*, got av_digits"):
        write_generated("av_digits", tmp_path)
    with pytest.raises(ValueError, match="`samples` is too small: expected at least 1, got 0"):
        write_generated("ave", tmp_path, samples=0)
    with pytest.raises(ValueError, match="`split` of a_okvqa is wrong: expected train or val, got test"):
        write_generated("a_okvqa", tmp_path, split="test")
    with pytest.raises(ValueError, match="`turns` of ave has no meaning"):
        write_generated("ave", tmp_path, turns="single")
    assert not any(tmp_path.iterdir())
