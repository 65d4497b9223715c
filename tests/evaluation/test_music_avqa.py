"""MUSIC-AVQA: PAPER's rules for tagged answers, its question types, and its published files."""

import json
from pathlib import Path

import pytest

from moka_peft.data import load_samples
from moka_peft.data.generated import write_generated
from moka_peft.evaluation import BENCHMARKS, Record, ask, music_avqa, summarise

from .records import judge, scored, write_records

ANNOTATIONS = Path(__file__).parents[3] / "shared" / "data" / "annotations" / "music_avqa_test_sample.json"


@pytest.mark.parametrize(
    ("prediction", "reference", "said", "strict", "authors"),
    [
        ("<answer>yes</answer>", "yes", "yes", 1, 1),
        ("<s> Two men play. <answer> Yes </answer>.</s><unk><unk>", "yes</s><unk>", "yes", 1, 1),
        ("<answer>violin</answer>", " <answer>Violin</answer> </s>", "violin", 1, 1),
        ("<answer>violin</answer>", "flute", "violin", 0, 0),
        ("<answer>more than ten</answer>", "ten", "more than ten", 0, 1),  # "ten" is part of it
        ("<answer>ten</answer>", "more than ten", "ten", 0, 0),
        ("yes", "yes", None, 0, None),
        ("", "yes", None, 0, None),
        ("<answer>yes", "yes", None, 0, None),
        ("<answer>yes</answer> or <answer>yes</answer>", "yes", None, 0, None),
        ("<answer>\nyes</answer>", "yes", None, 0, None),
        ("<ANSWER>yes</ANSWER>", "yes", None, 0, None),
        ("<answer>eleven</answer>", "ten", None, 0, None),
        ("<answer>yes.</answer>", "yes", None, 0, None),
        ("<answer>acoustic guitar</answer>", "acoustic_guitar", None, 0, None),
    ],
)
def test_tagged_answers(prediction, reference, said, strict, authors):
    for protocol, right in (("strict", strict), ("authors", authors)):
        judged = judge("music_avqa", prediction, reference, protocol)
        assert (judged.parsed, judged.right) == (said, right), protocol


def test_there_are_42_answers():
    assert len(set(music_avqa.ANSWERS)) == len(music_avqa.ANSWERS) == 42


def test_no_reference_is_refused():  # it would be in every answer
    with pytest.raises(ValueError, match="`reference`: expected an answer, got ' </s>'"):
        judge("music_avqa", "<answer>yes</answer>", " </s>", "authors")


def row(answer: str, said: str, group: str, kind: str) -> dict:
    """One in the schema of MokA's authors."""
    prediction = f"<s> They play. <answer> {said} </answer></s><unk>" if said else "<s> They play.</s>"
    return {
        "output": f"{answer}</s>",
        "predict": prediction,
        "question_type": [group, kind],
        "instruction": "<s>[INST]",
    }


def test_a_file_of_the_authors(tmp_path):
    rows = [
        row("two", "two", "Audio", "Counting"),
        row("ten", "more than ten", "Audio", "Counting"),
        row("yes", "", "Audio", "Counting"),
        row("no", "no", "Audio", "Comparative"),
        row("left", "right", "Audio-Visual", "Location"),
    ]
    rows[1]["question_type"] = '["Audio", "Counting"]'  # as the dataset writes it
    path = write_records(tmp_path, rows)
    strict, authors = (scored("music_avqa", path, protocol) for protocol in ("strict", "authors"))
    assert (strict.score, strict.records, strict.unparseable, strict.dropped) == (40.0, 5, 1, 0)
    assert (authors.score, authors.records, authors.unparseable, authors.dropped) == (75.0, 5, 1, 1)
    assert {name: (share.right, share.records) for name, share in strict.groups.items()} == {
        "Audio": (2, 4),
        "Audio/Comparative": (1, 1),
        "Audio/Counting": (1, 3),
        "Audio-Visual": (0, 1),
        "Audio-Visual/Location": (0, 1),
    }
    scores = [authors.groups[name].score for name in ("Audio", "Audio/Counting", "Audio-Visual")]
    assert scores == [100.0, 100.0, 0.0]  # of all records of a sense, not the mean of its types


@pytest.mark.parametrize(
    ("types", "problem"),
    [
        (None, "line 2: `type` is missing: expected type or question_type"),
        (["Audio"], r"line 2, `type`: expected \[\"Audio\", \"Counting\"\] or the like, got \['Audio'\]"),
        ("Audio", "line 2, `type`: expected a list in JSON, got 'Audio'"),
    ],
)
def test_a_wrong_type_is_named_with_its_row(tmp_path, types, problem):
    good = row("two", "two", "Audio", "Counting")
    path = write_records(tmp_path, [good, good | {"question_type": types}])
    with pytest.raises(ValueError, match=f"{path}, {problem}"):
        scored("music_avqa", path, "strict")


def test_fewer_than_the_published_records_are_partial():
    record = Record("", "", "yes", "<answer>yes</answer>", {"type": ["Visual", "Location"]})
    parts = [summarise("music_avqa", music_avqa.BENCHMARK, [record] * n, "strict").partial for n in (9184, 9185)]
    assert parts == ["9,184 of 9,185 records", None]


def test_published_layout(tmp_path):
    write_generated("music_avqa", tmp_path, samples=3, split="test")
    questions = BENCHMARKS["music_avqa"].questions(tmp_path)
    assert [question.facts["type"][1] for question in questions] == ["Counting", "Counting", "Existential"]
    first = questions[0]
    assert first.text == "How many bars are there in the video?" and first.reference in music_avqa.ANSWERS[:4]
    assert first.where == f"{tmp_path}/json/avqa-test.json, row 1"
    samples = load_samples({"name": "music_avqa", "folder": str(tmp_path), "split": "test"})
    for question, sample in zip(questions, samples, strict=True):  # models are asked as they were trained
        asked = ask(question, music_avqa.prompt(question, music_avqa.BENCHMARK.template))
        assert asked.messages[0] == sample.messages[0] and asked.id == sample.id
        for protocol in ("strict", "authors"):
            assert judge("music_avqa", sample.answer, question.reference, protocol).right == 1
    assert music_avqa.prompt(first, "{question} <video>") == f"{first.text} <video>"


def test_the_tree_of_the_authors(tmp_path):
    write_generated("music_avqa", tmp_path, samples=2, reasoning=True)
    (tmp_path / "train_samples_with_reasoning_avqa.json").rename(tmp_path / "test_samples_avqa.json")
    first, second = music_avqa.load(tmp_path)
    assert first.reference in music_avqa.ANSWERS[:4] and second.facts == {"type": ["Audio", "Counting"]}
    assert [Path(path).parent.name for path in first.videos + first.audios] == ["video_data", "audio_data"]
    Path(second.videos[0]).unlink()
    with pytest.raises(FileNotFoundError, match="test_samples_avqa.json, row 2, `video_id`: no such file"):
        music_avqa.load(tmp_path)


def test_real_questions(tmp_path):
    if not ANNOTATIONS.is_file():
        pytest.skip("the real annotation rows are not beside this checkout")
    (tmp_path / "json").mkdir()
    (tmp_path / "json" / "avqa-test.json").write_text(ANNOTATIONS.read_text())
    (tmp_path / "video").mkdir()
    for one in json.loads(ANNOTATIONS.read_text()):
        (tmp_path / "video" / f"{one['video_id']}.mp4").touch()
    questions = music_avqa.load(tmp_path)
    assert len(questions) == 54 and {question.reference for question in questions} <= set(music_avqa.ANSWERS)
    third = questions[2]
    assert (third.text, third.reference) == ("Is the violin in the video always playing?", "no")
