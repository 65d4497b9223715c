"""What is checked of every benchmark's questions before a model sees them."""

import json

import pytest

from moka_peft.evaluation import BENCHMARKS


def write_pope(folder, numbers):
    (folder / "a.jpg").write_bytes(b"jpeg")
    row = {"image": "a.jpg", "text": "Is there a dog?", "label": "no"}
    lines = [json.dumps(row | {"question_id": number}) + "\n" for number in numbers]
    (folder / "coco_pope_random.json").write_text("".join(lines))


@pytest.mark.parametrize(
    ("numbers", "problem"),
    [
        ([1, 2, 1], r"random\.json, row 3: its id random-1 is that of .*row 1, too"),
        ([], r"POPE in `.*`, split random has no questions"),
    ],
)
def test_questions_that_cannot_be_told_apart_or_are_none(tmp_path, numbers, problem):
    write_pope(tmp_path, numbers)
    with pytest.raises(ValueError, match=problem):
        BENCHMARKS["pope"].questions(tmp_path, split="random")


def test_every_question_has_an_id_of_its_own(tmp_path):
    write_pope(tmp_path, [1, 2])
    assert len(BENCHMARKS["pope"].questions(tmp_path, split="random")) == 2
