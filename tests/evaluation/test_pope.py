"""POPE: PAPER's rules for yes and no, and the rates that it reports."""

import json

import pytest

from moka_peft.evaluation import pope

from .records import judge, scored, write_records


@pytest.mark.parametrize(
    ("prediction", "reference", "strict", "authors"),
    [
        ("Yes", "yes", ("yes", 1), ("yes", 1)),
        ("No, there is none.</s>", "no", ("no", 1), ("no", 1)),
        ("<s> **Yes**", "yes", ("yes", 1), ("yes", 1)),
        ("I know it is there", "no", (None, 0), ("no", 1)),  # "know" holds "no"
        ("Nothing. Yes", "yes", (None, 0), ("yes", 1)),
        ("No, I would not say yes", "no", ("no", 1), ("yes", 0)),  # yes goes first wherever it stands
        ("Maybe", "yes", (None, 0), (None, 0)),
        ("", "no", (None, 0), (None, 0)),
        ("yes", " Yes\n", ("yes", 1), ("yes", 1)),
        ("no", "No</s>", ("no", 1), ("no", 1)),
    ],
)
def test_yes_and_no(prediction, reference, strict, authors):
    for protocol, (parsed, right) in (("strict", strict), ("authors", authors)):
        judged = judge("pope", prediction, reference, protocol)
        assert (judged.parsed, judged.right) == (parsed, right), protocol


@pytest.mark.parametrize("reference", ["A", "event:Bark start_time:0 end_time:3", "maybe", ""])
def test_a_reference_that_is_neither_is_an_error(tmp_path, reference):  # as in a file of another benchmark
    path = write_records(tmp_path, [{"question": "a", "answer": reference, "output": ["No"]}])
    with pytest.raises(ValueError, match=rf"records.jsonl, line 1, `answer`: expected yes or no, got '{reference}'"):
        scored("pope", path, "strict")


def test_rates_and_splits(tmp_path):
    rows = [
        {"question": "a", "answer": "yes", "output": ["Yes"], "split": "random"},
        {"question": "b", "answer": "no", "output": ["Yes"], "split": "random"},
        {"question": "c", "answer": "yes", "output": ["No"], "split": "popular"},
        {"question": "d", "answer": "no", "output": ["No"], "split": "popular"},
        {"question": "e", "answer": "yes", "output": ["?"], "split": "popular"},
    ]
    result = scored("pope", write_records(tmp_path, rows), "strict")
    assert (result.score, result.records, result.unparseable) == (40.0, 5, 1)
    expected = {"accuracy": 40.0, "precision": 50.0, "recall": 100 / 3, "f1": 40.0, "yes_ratio": 40.0}
    assert {name: result.details[name] for name in expected} == pytest.approx(expected)
    assert result.details["splits"]["random"]["accuracy"] == 50.0
    assert result.groups["popular"].score == pytest.approx(100 / 3)
    assert result.partial == "2 of 2,910 records of random, 3 of 3,000 records of popular"


def test_splits_are_null_where_no_record_names_one(tmp_path):
    path = write_records(tmp_path, [{"question": "a", "answer": "no", "output": ["no"]}])
    assert scored("pope", path, "strict").details["splits"] is None


def test_published_layout(tmp_path):
    (tmp_path / "val2014").mkdir()
    (tmp_path / "val2014" / "a.jpg").write_bytes(b"jpeg")
    row = {"question_id": 1, "image": "a.jpg", "text": "Is there a dog in the image?", "label": "yes"}
    for split in pope.SPLITS:
        (tmp_path / f"coco_pope_{split}.json").write_text(json.dumps(row) + "\n")
    assert [question.id for question in pope.load(tmp_path)] == ["random-1", "popular-1", "adversarial-1"]
    [question] = pope.load(tmp_path, split="popular")
    assert (question.text, question.reference, question.facts) == (row["text"], "yes", {"split": "popular"})
    assert pope.prompt(question, "{question}<image>") == "Is there a dog in the image?<image>"
