"""The index of token lengths: what is written comes back, and it fits only what it was written for."""

import io
import json
import tarfile
from pathlib import Path

import numpy as np
import pytest

from moka_peft.composite import tiny_avt_processor
from moka_peft.data import AvDigits, MediaOptions, load_samples
from moka_peft.data.token_index import read_index, write_index


@pytest.fixture(scope="module")
def processor():
    return tiny_avt_processor()


def write_rows(path: Path, *answers: str) -> Path:
    turns = [[{"role": "user", "content": "?"}, {"role": "assistant", "content": answer}] for answer in answers]
    path.write_text("\n".join(json.dumps({"messages": messages}) for messages in turns))
    return path


@pytest.mark.parametrize("streaming", [False, True])
def test_lengths_come_back(tmp_path: Path, processor, streaming: bool):
    source = {"path": write_rows(tmp_path / "a.jsonl", "one", "two"), "streaming": streaming}
    write_index(tmp_path / "index.npz", [5, 0], load_samples(source), processor)
    lengths = read_index(tmp_path / "index.npz", load_samples(source["path"]), tiny_avt_processor())
    assert lengths.dtype == np.int32 and lengths.tolist() == [5, 0]


def test_other_data_processor_or_options_are_refused(tmp_path: Path, processor):
    path, index = write_rows(tmp_path / "a.jsonl", "one", "two"), tmp_path / "index.npz"
    write_index(index, [5, 6], load_samples(path), processor)
    other = tiny_avt_processor()
    other.chat_template += " "
    with pytest.raises(ValueError, match="does not fit: expected the processor it was written for.*--write-index"):
        read_index(index, load_samples(path), other)
    with pytest.raises(ValueError, match="expected the media options it was written for"):
        read_index(index, load_samples(path), processor, MediaOptions(video_frames=4))
    write_rows(path, "one", "too")
    with pytest.raises(ValueError, match="expected the samples it was written for"):
        read_index(index, load_samples(path), processor)


def test_generated_samples_have_an_index_too(tmp_path: Path, processor):
    write_index(tmp_path / "index.npz", [1, 2], AvDigits(size=2), processor)
    assert read_index(tmp_path / "index.npz", AvDigits(size=2), processor).tolist() == [1, 2]
    with pytest.raises(ValueError, match="expected the samples"):
        read_index(tmp_path / "index.npz", AvDigits(size=2, seed=1), processor)


def test_bad_index_files(tmp_path: Path, processor):
    with pytest.raises(ValueError, match="`lengths` is wrong: expected 2, one per sample, got 1"):
        write_index(tmp_path / "index.npz", [1], AvDigits(size=2), processor)
    (tmp_path / "index.npz").write_text("no index")
    for name in ("index.npz", "gone.npz"):
        with pytest.raises(ValueError, match=rf"{name}` cannot be read.*Write it again: moka validate"):
            read_index(tmp_path / name, AvDigits(size=2), processor)


def test_samples_too_long_for_the_index_are_not_taken_for_bad_ones(tmp_path: Path, processor):
    index, samples = tmp_path / "index.npz", AvDigits(size=2)
    write_index(index, [5, 0], samples, processor, max_length=6)
    for fits in (6, 4):
        assert read_index(index, samples, processor, max_length=fits).tolist() == [5, 0]
    for longer in (7, None):
        with pytest.raises(
            ValueError, match=f"`training.max_length` to be at most the 6 it was written with, got {longer}"
        ):
            read_index(index, samples, processor, max_length=longer)
    write_index(index, [5, 6], samples, processor, max_length=6)
    assert read_index(index, samples, processor, max_length=7).tolist() == [5, 6]


def test_another_question_needs_another_index(tmp_path: Path, processor):
    with tarfile.open(tmp_path / "a.tar", "w") as tar:
        member = tarfile.TarInfo("1.txt")
        member.size = 3
        tar.addfile(member, io.BytesIO(b"yes"))
    sources = [{"path": tmp_path / "a.tar", "question": question} for question in ("Is it?", "Is it really?")]
    write_index(tmp_path / "index.npz", [5], load_samples(sources[0]), processor)
    with pytest.raises(ValueError, match="expected the samples"):
        read_index(tmp_path / "index.npz", load_samples(sources[1]), processor)
