"""Prepared samples: the batches of the plain collator bit for bit, from a folder that is whole, fresh and shared."""

import json
import os
import signal
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tokenizers import Tokenizer

from moka_peft.composite import tiny_avt_processor
from moka_peft.data import AvDigits, Collator, MediaOptions, SpokenDigits, prepared
from moka_peft.data.epochs import without_loss
from moka_peft.data.mixing import MixedSamples
from moka_peft.data.prepared import PreparedCollator, prepare
from moka_peft.data.prepared_rows import Row, differences
from moka_peft.data.prepared_store import open_rows

SHUFFLED = [5, 11, 0, 7, 7, 3]


@pytest.fixture(scope="module")
def collator() -> Collator:
    return Collator(tiny_avt_processor())


def assert_same_batches(samples: Any, ready: Any, collator: Collator, indices: list[int]) -> None:
    ours, plain = [ready[i] for i in indices], [samples[i] for i in indices]
    assert differences(collator(plain), PreparedCollator(collator)(ours)) == []
    assert differences(collator.collate_prompts(plain), PreparedCollator(collator).collate_prompts(ours)) == []


@pytest.mark.parametrize(
    "samples",
    [
        AvDigits("train", 12, images="noisy", sounds="other", shortcuts=0.5),
        AvDigits("train", 12, groups=["Visual"], media="image"),
        SpokenDigits("avt", "caption", "align", 12),  # one medium each, in turn; recordings of several segments
        MixedSamples([AvDigits("train", 4), SpokenDigits("st", size=8)]),
    ],
)
def test_batches_are_those_of_the_samples_bit_for_bit(samples: Any, collator: Collator, tmp_path: Path):
    ready = prepare(samples, collator, tmp_path, prompts=True)
    assert len(ready) == len(samples)
    assert_same_batches(samples, ready, collator, SHUFFLED)
    for ours, plain in zip(ready, samples, strict=True):
        assert (ours.id, ours.group, ours.kind, ours.answer) == (plain.id, plain.group, plain.kind, plain.answer)
        assert ours.messages[0]["content"] == "".join(p.get("text", "") for p in plain.messages[0]["content"])


def test_a_filler_without_loss_stays_one(collator: Collator, tmp_path: Path):
    samples = AvDigits("train", 3)
    ready = prepare(samples, collator, tmp_path, prompts=False)
    ours = PreparedCollator(collator)([ready[0], without_loss(ready[1])])
    assert differences(collator([samples[0], without_loss(samples[1])]), ours) == []


def test_the_second_time_nothing_is_made(collator: Collator, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    samples = AvDigits("train", 12)
    prepare(samples, collator, tmp_path, prompts=True)

    def refuse(*_: Any) -> None:
        raise AssertionError("made again")

    with monkeypatch.context() as patch:
        patch.setattr(AvDigits, "sample", refuse)
        again = prepare(samples, collator, tmp_path, prompts=True)
    assert_same_batches(samples, again, collator, SHUFFLED)


def test_whatever_decides_the_batches_has_a_folder_of_its_own(
    collator: Collator, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    def folders(samples: Any, collator: Collator = collator, prompts: bool = False) -> int:
        prepare(samples, collator, tmp_path, prompts=prompts)
        return sum(path.is_dir() for path in tmp_path.iterdir())

    for known, samples in enumerate(
        [AvDigits("train", 2), AvDigits("train", 3), AvDigits("test", 2), AvDigits("train", 2, seed=1),
         AvDigits("train", 2, images="noisy"), SpokenDigits("st", size=2), SpokenDigits("st", size=2, speakers=["a"])]
    ):  # fmt: skip
        assert folders(samples) == known + 1
    assert folders(AvDigits("train", 2)) == 7
    assert folders(AvDigits("train", 2), prompts=True) == 8
    assert folders(AvDigits("train", 2), Collator(collator.processor, media=MediaOptions(max_image_pixels=64))) == 9
    processor = tiny_avt_processor()
    processor.image_processor.image_mean = [0.4] * 3
    assert folders(AvDigits("train", 2), Collator(processor)) == 10
    processor = tiny_avt_processor()
    exchange_two_words(processor.tokenizer)
    assert folders(AvDigits("train", 2), Collator(processor)) == 11
    monkeypatch.setattr(prepared, "_code", lambda: "another version of this package")
    assert folders(AvDigits("train", 2)) == 12


def exchange_two_words(tokenizer: Any) -> None:
    """Makes it the tokenizer of another model: the vocabulary is as large, and two ids mean something else."""
    state = json.loads(tokenizer.backend_tokenizer.to_str())
    words = state["model"]["vocab"]
    words[-1], words[-2] = words[-2], words[-1]
    tokenizer._tokenizer = Tokenizer.from_str(json.dumps(state))


def test_speech_needs_no_images_library(collator: Collator, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(prepared, "LIBRARIES", (*prepared.LIBRARIES, "a-library-that-nobody-has"))
    assert len(prepare(SpokenDigits("st", size=2), collator, tmp_path, prompts=False)) == 2


def test_what_a_tokenizer_did_last_does_not_matter(tmp_path: Path):
    """A fast one keeps the padding and truncation of its last call."""
    collator = Collator(tiny_avt_processor())
    prepare(AvDigits("train", 2), collator, tmp_path, prompts=False)
    collator.processor.tokenizer(["a", "an and"], padding="max_length", max_length=9, truncation=True)
    prepare(AvDigits("train", 2), collator, tmp_path, prompts=False)
    assert sum(path.is_dir() for path in tmp_path.iterdir()) == 1


def test_recordings_that_changed_are_read_again(collator: Collator, tmp_path: Path):
    import soundfile

    folder = tmp_path / "speech"
    folder.mkdir()
    for digit in range(10):
        soundfile.write(folder / f"{digit}_ann_1.wav", np.sin(np.arange(3000) * 0.1 * (digit + 1)), 16_000)
    samples = SpokenDigits("st", size=2, folder=folder)
    prepare(samples, collator, tmp_path / "cache", prompts=False)
    for digit in range(10):
        soundfile.write(folder / f"{digit}_ann_1.wav", np.sin(np.arange(3001) * 0.2 * (digit + 1)), 16_000)
    prepare(samples, collator, tmp_path / "cache", prompts=False)
    assert sum(path.is_dir() for path in (tmp_path / "cache").iterdir()) == 2


def test_what_cannot_be_prepared_is_refused(collator: Collator, tmp_path: Path):
    with pytest.raises(
        ValueError, match="`data.cache` is for generated samples alone: expected av_digits or .*got list"
    ):
        prepare([AvDigits("train", 1)[0]], collator, tmp_path, prompts=False)
    several = Collator(collator.processor, kinds=("image",))
    with pytest.raises(ValueError, match="`data.cache` cannot hold several processes"):
        prepare(AvDigits("train", 1), several, tmp_path, prompts=False)
    with pytest.raises(ValueError, match="is not prepared"):
        PreparedCollator(collator)([AvDigits("train", 1)[0]])


def test_a_processor_that_mixes_samples_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """One that scales a batch by its loudest member, say."""
    collator = Collator(tiny_avt_processor())
    process = Collator._process

    def mixing(self: Collator, *args: Any, **options: Any) -> Any:
        batch = process(self, *args, **options)
        return batch | {"input_features": batch["input_features"] / batch["input_features"].max()}

    monkeypatch.setattr(Collator, "_process", mixing)
    with pytest.raises(ValueError, match="its input_features of several samples are not those of each put together"):
        prepare(AvDigits("train", 3), collator, tmp_path, prompts=False)
    assert not any(path.is_dir() for path in tmp_path.iterdir())


def test_too_large_a_set_is_refused(collator: Collator, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("moka_peft.data.prepared_store.MAX_BYTES", 100_000)
    with pytest.raises(ValueError, match="`data.cache` would be too large: .* after 2 samples"):
        prepare(AvDigits("train", 3), collator, tmp_path, prompts=False)


def rows(count: int) -> Iterator[tuple[Row, dict[str, Any]]]:
    """Rows of which each third has no image."""
    for index in range(count):
        row = {"input_ids": np.arange(index + 1)}
        row |= {"pixels": np.full((1, 2), index, dtype=np.float32)} if index % 3 else {}
        yield row, {"id": str(index), "messages": []}


def test_rows_come_back_as_they_were(tmp_path: Path):
    stored = open_rows(tmp_path, "k", lambda: rows(7))
    for index, (row, text) in enumerate(rows(7)):
        assert stored.row(index).keys() == row.keys() and stored.texts[index] == text
        for name, values in row.items():
            np.testing.assert_array_equal(stored.row(index)[name], values)
            assert stored.row(index)[name].dtype == values.dtype


@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")  # the child does nothing but write and die
def test_a_killed_writer_leaves_nothing_that_counts(tmp_path: Path):
    def make() -> Iterator[tuple[Row, dict[str, Any]]]:
        yield from rows(2)
        os.kill(os.getpid(), signal.SIGKILL)

    child = os.fork()
    if not child:
        try:
            open_rows(tmp_path, "k", make)
        finally:
            os._exit(1)
    _, status = os.waitpid(child, 0)
    assert os.WTERMSIG(status) == signal.SIGKILL
    assert not (tmp_path / "k").exists() and (tmp_path / "k.partial").is_dir()
    assert len(open_rows(tmp_path, "k", lambda: rows(20))) == 20
    assert not (tmp_path / "k.partial").exists()


def test_a_writer_that_fails_leaves_nothing(tmp_path: Path):
    def fail() -> Iterator[tuple[Row, dict[str, Any]]]:
        yield from rows(2)
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        open_rows(tmp_path, "k", fail)
    assert [path.name for path in tmp_path.iterdir()] == ["k.lock"]


def test_of_several_at_once_one_writes(tmp_path: Path):
    """The others wait for it, as processes do: the lock belongs to the opened file."""
    writers = []

    def make() -> Iterator[tuple[Row, dict[str, Any]]]:
        writers.append(threading.get_ident())
        for row in rows(10):
            time.sleep(0.02)
            yield row

    with ThreadPoolExecutor(4) as pool:
        opened = list(pool.map(lambda _: len(open_rows(tmp_path, "k", make)), range(4)))
    assert opened == [10] * 4 and len(writers) == 1


def test_a_damaged_folder_is_refused(tmp_path: Path):
    folder = open_rows(tmp_path, "k", lambda: rows(5)).folder
    with (folder / "pixels.raw").open("ab") as file:
        file.truncate(8)
    with pytest.raises(ValueError, match=r"is damaged: expected 24 bytes of pixels, got 8. Delete the folder"):
        open_rows(tmp_path, "k", lambda: rows(5))


def test_samples_of_two_shapes_are_refused(tmp_path: Path):
    def two() -> Iterator[tuple[Row, dict[str, Any]]]:
        yield {"pixels": np.zeros((1, 2))}, {}
        yield {"pixels": np.zeros((1, 3))}, {}

    with pytest.raises(ValueError, match="needs samples of one shape: expected pixels of"):
        open_rows(tmp_path, "k", two)
    assert [path.name for path in tmp_path.iterdir()] == ["k.lock"]


def test_batches_can_be_trained_on(collator: Collator, tmp_path: Path):
    """They own their memory: what the mapped files hold cannot be written to."""
    ready = prepare(AvDigits("train", 1), collator, tmp_path, prompts=False)
    batch = PreparedCollator(collator)([ready[0]])
    for values in batch.values():
        assert torch.is_tensor(values)
        values.zero_()
    assert PreparedCollator(collator)([ready[0]])["pixel_values"].abs().sum() > 0
