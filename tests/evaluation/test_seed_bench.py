"""SEED-Bench: its published object of questions, on pictures, frames and videos; scores per question type."""

import json

import pytest

from moka_peft.evaluation import BENCHMARKS, ask, seed_bench

from .records import scored, write_records

TYPES = {"Instances Counting": 5, "Action Recognition": 10}
CHOICES = {"choice_a": "One", "choice_b": "Two", "choice_c": "Three", "choice_d": "Four", "answer": "C"}
FRAMES = ["task10/ssv2_8_frame/v1/1.png", "task10/ssv2_8_frame/v1/2.png"]
PICTURE = {"question_id": "101", "question": "How many?", "question_type_id": 5, "data_type": "image", "data_id": "1_2"}
FILM = {"question_id": "v1", "question": "What is done?", "question_type_id": 10, "data_type": "video"}
QUESTIONS = [
    PICTURE | CHOICES,
    FILM | CHOICES | {"data_id": FRAMES, "segment": [1.0, 2.0]},
    FILM | CHOICES | {"question_id": "v2", "data_id": "94328.webm"},
]


@pytest.fixture
def folder(tmp_path):
    for name in ("SEED-Bench-image/1_2", "videos/94328.webm", *(f"v1_video/{frame}" for frame in FRAMES)):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(b"medium")
    return tmp_path


def write(folder, questions=QUESTIONS, **entries):
    content = {"questions": questions, "question_type": TYPES} | entries
    (folder / "SEED-Bench.json").write_text(json.dumps(content), encoding="utf-8")
    return folder


def test_published_layout(folder):
    [picture] = seed_bench.load(write(folder))
    assert (picture.id, picture.text, picture.reference) == ("101", "How many?", "C")
    assert picture.images == (f"{folder}/SEED-Bench-image/1_2",)
    choices = {"A": "One", "B": "Two", "C": "Three", "D": "Four"}
    assert picture.facts == {"choices": choices, "question_type": "Instances Counting", "data_type": "image"}
    frames, video = seed_bench.load(folder, part="video")
    assert frames.images == tuple(f"{folder}/v1_video/{frame}" for frame in FRAMES)
    assert (video.images, video.videos) == ((), (f"{folder}/videos/94328.webm",))
    assert [one.id for one in seed_bench.load(folder, part="all")] == ["101", "v1", "v2"]

    lines = "A. One\nB. Two\nC. Three\nD. Four\nPlease answer with the letter of the right choice."
    for question, tags in ((picture, "<image>"), (frames, "<image><image>"), (video, "<video>")):
        prompt = BENCHMARKS["seed_bench"].prompt(question, seed_bench.BENCHMARK.template)
        assert prompt == f"{tags}\n{question.text}\n{lines}"
        media = [part for part in ask(question, prompt).messages[0]["content"] if part["type"] != "text"]
        assert len(media) == tags.count("<")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"data_id": "none"}, r"Bench\.json, question 1, `data_id`: no such file: .*SEED-Bench-image/none`"),
        ({"data_id": None}, r"question 1, `data_id`: expected a text"),
        ({"data_id": []}, r"question 1, `data_id`: expected a text"),
        ({"data_type": "Single Image"}, r"question 1, `data_type`: expected image or video, got 'single image'"),
        ({"question_type_id": 7}, r"question 1, `question_type_id`: expected one of 5, 10, got 7"),
        ({"choice_b": None, "choice_c": None, "choice_d": None}, r"question 1, `choice_b`: expected at least two"),
        ({"answer": "E"}, r"question 1, `answer`: expected one of A, B, C, D, got 'E'"),
        ({"data_type": "video", "data_id": "a.MP4", "segment": [1, 2]}, r"question 1, `segment`: a part of a video"),
    ],
)
def test_wrong_questions_are_errors(folder, change, message):
    with pytest.raises((ValueError, FileNotFoundError), match=message):
        seed_bench.load(write(folder, [PICTURE | CHOICES | change]), part="all")


@pytest.mark.parametrize(
    ("entries", "message"),
    [
        ({"questions": {}}, r"SEED-Bench\.json, `questions` is missing or wrong"),
        ({"question_type": None}, r"SEED-Bench\.json, `question_type` is missing or wrong"),
        ({"questions": [3]}, r"SEED-Bench\.json, question 1, `row`: expected an object, got 3"),
    ],
)
def test_another_object_is_an_error(folder, entries, message):
    with pytest.raises(ValueError, match=message):
        seed_bench.load(write(folder, **entries))


def test_question_types(tmp_path):
    told = [("A", "x", "image"), ("B", "x", "image"), ("A", "y", "video"), ("A", None, None)]
    rows = [
        {"id": str(number), "reference": "A", "prediction": said, "question_type": kind, "data_type": medium}
        for number, (said, kind, medium) in enumerate(told)
    ]
    result = scored("seed_bench", write_records(tmp_path, rows), "strict")
    assert result.score == 75.0
    assert {name: share.score for name, share in result.groups.items()} == {
        "image": pytest.approx(200 / 3),
        "video": 100.0,
        "x": 50.0,
        "y": 100.0,
    }
    assert result.partial == "3 of 14,233 records of image, 1 of 5,009 records of video"
