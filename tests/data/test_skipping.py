"""What is done about bad samples in a batch, in a run, and in the list of what was left out."""

import json
import pickle
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.utils.data import DataLoader

from moka_peft.data import BadSample, Sample, SkippingCollator, merge_skipped
from moka_peft.data.skipping import keep_readable


class Refusing:
    """A collator that refuses samples called bad, and, if told so, every batch of three."""

    def __init__(self, refuses_three: bool = False):
        self.refuses_three = refuses_three

    def __call__(self, samples: Sequence[Sample]) -> dict[str, Any]:
        if bad := [sample.id for sample in samples if sample.id.startswith("bad")]:
            raise ValueError(f"{bad[0]} is bad")
        if self.refuses_three and len(samples) == 3:
            raise ValueError("three are too many")
        return {"labels": torch.ones(len(samples), 2, dtype=torch.long)}

    def collate_prompts(self, samples: Sequence[Sample]) -> dict[str, Any]:
        return self(samples)


def sample(id: str, where: str = "") -> Sample:
    return Sample(id, [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Ho"}], where=where)


def lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_bad_samples_leave_their_batch(tmp_path: Path):
    collator = SkippingCollator(Refusing(), tmp_path / "log")
    unread = BadSample("f.jsonl, row 3", "no answer")
    assert collator([sample("a"), unread, sample("bad", "f.jsonl, row 4"), sample("b")])["labels"].shape[0] == 2
    assert not collator([sample("c")])["labels"].eq(-100).any()
    assert lines(tmp_path / "log" / "rank0-worker0.jsonl") == [
        {"where": "f.jsonl, row 3", "problem": "no answer", "id": ""},
        {"where": "f.jsonl, row 4", "problem": "bad is bad", "id": "bad"},
    ]


def test_an_empty_batch_carries_no_loss(tmp_path: Path):
    batch = SkippingCollator(Refusing(), tmp_path)([sample("bad")])
    assert batch["labels"].tolist() == [[-100, -100]]


def test_what_no_sample_shows_is_raised(tmp_path: Path):
    with pytest.raises(ValueError, match="three are too many"):
        SkippingCollator(Refusing(refuses_three=True), tmp_path)([sample(id) for id in "abc"])
    assert not list(tmp_path.iterdir())


def test_processes_write_their_own_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("RANK", "3")
    samples = [sample("bad-0"), sample("a"), sample("b"), sample("bad-1")]
    collator = pickle.loads(pickle.dumps(SkippingCollator(Refusing(), tmp_path / "log")))
    for _ in range(2):  # two epochs
        loader = DataLoader(samples, batch_size=2, collate_fn=collator, num_workers=2)  # type: ignore[arg-type]
        assert [batch["labels"].shape[0] for batch in loader] == [1, 1]
    assert sorted(path.name for path in (tmp_path / "log").iterdir()) == ["rank3-worker0.jsonl", "rank3-worker1.jsonl"]
    merged = merge_skipped(tmp_path / "log", tmp_path / "skipped.jsonl")
    assert [(entry["id"], entry["times"]) for entry in merged] == [("bad-0", 2), ("bad-1", 2)]
    assert lines(tmp_path / "skipped.jsonl") == merged


def test_a_line_that_a_kill_cut_off_hides_no_other(tmp_path: Path):
    collator = SkippingCollator(Refusing(), tmp_path)
    collator([sample("bad-0"), sample("a")])
    [log] = tmp_path.glob("*.jsonl")
    with log.open("a") as file:
        file.write('{"where": "da')
    collator([sample("bad-1"), sample("a")])
    assert [entry["id"] for entry in merge_skipped(tmp_path, tmp_path / "all.jsonl")] == ["bad-0", "bad-1"]


def test_nothing_skipped_writes_nothing(tmp_path: Path):
    assert merge_skipped(tmp_path / "log", tmp_path / "skipped.jsonl") == []
    assert not (tmp_path / "skipped.jsonl").exists()


def test_held_out_samples_that_can_be_read(tmp_path: Path):
    samples: Any = [sample("a"), BadSample("f, row 2", "torn"), sample("bad"), sample("b")]
    kept = keep_readable(samples, Refusing(), tmp_path)
    assert [s.id for s in kept] == ["a", "b"] and len(kept) == 2 and kept[-1].id == "b"
    assert [entry["problem"] for entry in merge_skipped(tmp_path, tmp_path / "all.jsonl")] == ["bad is bad", "torn"]


def test_held_out_samples_are_kept_only_with_an_answer_that_can_be_read(tmp_path: Path):
    class Prompting(Refusing):
        def collate_prompts(self, samples: Sequence[Sample]) -> dict[str, Any]:
            return {}

    assert [s.id for s in keep_readable([sample("a"), sample("bad")], Prompting(), tmp_path)] == ["a"]


def test_other_attributes_are_those_of_the_collator(tmp_path: Path):
    assert SkippingCollator(Refusing(), tmp_path).refuses_three is False
