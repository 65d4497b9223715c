"""Every kind of malformed data: named where it stands with `raise`, left out and listed with `skip`."""

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.utils.data import DataLoader

from moka_peft.composite import tiny_avt_processor
from moka_peft.data import Collator, MediaOptions, Sample, SkippingCollator, load_samples, merge_skipped
from moka_peft.data.media import load_media

from .malformed import MALFORMED, Malformed

CASES = pytest.mark.parametrize("case", MALFORMED, ids=[case.name for case in MALFORMED])


class Reader:
    """Decodes all media, and collates what the processor takes: images and recordings."""

    def __init__(self, media: MediaOptions):
        self.media, self.collator = media, Collator(tiny_avt_processor(), media=media, max_length=100)

    def __call__(self, samples: Sequence[Sample]) -> dict[str, Any]:
        for sample in samples:
            for type in ("video", "audio", "image"):
                load_media(sample, type, self.media, 16_000)
        return self.collator(samples)


def test_there_are_enough_kinds():
    assert len({case.name for case in MALFORMED}) == len(MALFORMED) >= 30


@CASES
def test_raise_names_file_row_field_and_remedy(case: Malformed, tmp_path: Path):
    path, media = case.make(tmp_path), MediaOptions(**case.media)
    with pytest.raises((OSError, ValueError)) as caught:
        samples = load_samples(path, media=media)
        for i in range(len(samples)):
            Reader(media)([samples[i]])
    said = str(caught.value)
    for wanted in (case.problem, case.remedy):
        assert re.search(wanted, said), said
    if case.place != "all rows":
        assert f"{path}, {case.place}" in said and f"`{case.field}`" in said, said
    assert str(path) in said


@CASES
@pytest.mark.parametrize("streaming", [False, True])
def test_skip_ends_and_lists_it(case: Malformed, streaming: bool, tmp_path: Path):
    path, media = case.make(tmp_path), MediaOptions(**case.media)
    samples = load_samples({"path": path, "streaming": streaming}, media=media, on_bad_sample="skip")
    collator = SkippingCollator(Reader(media), tmp_path / "skipped")
    rows = [row for batch in DataLoader(samples, batch_size=2, collate_fn=collator) for row in batch["labels"]]  # type: ignore
    assert sum(bool((row != -100).any()) for row in rows) == case.good
    assert len(samples) == case.good + 1
    (entry,) = merge_skipped(tmp_path / "skipped", tmp_path / "skipped.jsonl")
    assert (tmp_path / "skipped.jsonl").read_text().count("\n") == 1
    assert str(path) in entry["where"] and case.place in entry["where"]
    assert re.search(case.problem, entry["problem"]) and entry["times"] == 1


def test_a_batch_of_bad_samples_is_a_row_without_loss(tmp_path: Path):
    batch = SkippingCollator(Collator(tiny_avt_processor()), tmp_path)([])
    assert batch["labels"].shape[0] == 1 and torch.all(batch["labels"] == -100)
