"""AIR-Bench: which choice an answer names, by PAPER's rule and by AIR-Bench's own, and the mean of its tasks."""

import json

import pytest

from moka_peft.evaluation import air_bench

from .records import judge, scored, write_records

FOUR = {"A": "male", "B": "female", "C": "a child", "D": "no one."}
TWO = {"A": "yes", "B": "no"}
MAN = {"A": "man", "B": "woman"}
NUMBERS = {"A": "two", "B": "twenty two", "C": "three"}


@pytest.mark.parametrize(
    ("prediction", "choices", "strict", "authors"),
    [
        # the letter
        ("B", FOUR, "B", "B"),
        ("b", FOUR, "B", None),
        ("B.", FOUR, "B", "B"),
        ("B) male", FOUR, "B", "B"),  # the letter goes before the text
        ("B: because of the voice", FOUR, "B", "B"),
        ("B, I think", FOUR, "B", "B"),
        ("(B) male", FOUR, "B", None),
        ("[b] it is", FOUR, "B", None),
        ("<s> **B**\nIt is high.</s>", FOUR, "B", None),
        ("B\nIt is high", FOUR, "B", "B"),
        ("B Female", FOUR, "B", "B"),
        ("B females", FOUR, None, "B"),
        ("Bfemale", FOUR, None, "B"),
        ("D no one", FOUR, "D", "D"),  # a text's last full stop may be missing
        ("C", TWO, None, "C"),  # no such choice
        ("D. yes", TWO, "A", "D"),
        ("Dogs bark", FOUR, None, "D"),
        # the article
        ("A man is speaking", {"A": "dog", "B": "cat"}, None, "A"),
        ("A man is speaking", {"A": "woman", "B": "man"}, "B", "A"),
        ("A man is speaking, no woman", MAN, "A", "A"),
        ("A and B", FOUR, None, "A"),
        # the text
        ("It is a  CHILD, clearly", FOUR, "C", None),
        ("It is female", FOUR, "B", None),  # "female" does not hold "male"
        ("male or female", FOUR, None, None),
        ("I know", TWO, None, None),  # "know" does not hold "no"
        ("Nothing", TWO, None, None),
        ("no.", TWO, "B", None),
        ("twenty two", NUMBERS, "B", None),  # no "two" of its own
        ("two, not twenty two", NUMBERS, None, None),
        ("an inhuman voice", {"A": "human", "B": "animal"}, None, None),
        ("some dog (big)", {"A": "dog (big)", "B": "cat (big)"}, "A", None),
        ("the same", {"A": "same", "B": "same"}, "A", None),  # as the right choice is found: the first
        # the last character but one
        ("The answer is (B)</s>", FOUR, None, "B"),
        ("It is B.\n", FOUR, None, "B"),
        ("Answer: B", FOUR, None, "A"),
        ("It is B", FOUR, None, None),
        ("", FOUR, None, None),
    ],
)
def test_choices(prediction, choices, strict, authors):
    judged = judge("air_bench", prediction, "B", "strict", choices=choices)
    assert (judged.parsed, judged.right) == (strict, float(strict == "B"))
    judged = judge("air_bench", prediction, "B", "authors", choices=choices)
    assert (judged.parsed, judged.right) == (authors, None if authors is None else float(authors == "B"))


def test_tasks_and_their_mean(tmp_path):
    shared = {"choice_a": "yes", "choice_b": "no", "choice_c": None, "answer_gt": "no"}
    rows = [
        {**shared, "response": "B.", "task_name": "Speech_Grounding", "dataset_name": "x"},
        {**shared, "response": "A.", "task_name": "Speech_Grounding", "dataset_name": "y"},
        {**shared, "response": "?", "task_name": "Speech_Grounding", "dataset_name": "y"},
        {**shared, "response": "?", "task_name": "Sound_AQA", "dataset_name": "x"},
        {"choices": TWO, "reference": "B", "prediction": "B", "task": "Audio_Grounding", "dataset": "x"},
    ]
    path = write_records(tmp_path, rows)
    strict, authors = (scored("air_bench", path, protocol) for protocol in ("strict", "authors"))
    assert (strict.score, strict.unparseable, strict.dropped) == (40.0, 2, 0)
    assert (authors.score, authors.unparseable, authors.dropped) == (pytest.approx(200 / 3), 2, 2)
    assert strict.groups["Speech_Grounding"].score == pytest.approx(100 / 3)
    assert strict.details["task_mean"] == pytest.approx((100 + 100 / 3 + 0) / 3)
    assert authors.details["task_mean"] == 75.0
    assert authors.details["datasets"] == {"Audio_Grounding_x": 100, "Speech_Grounding_x": 100, "Speech_Grounding_y": 0}
    assert strict.partial == (
        "3 of 981 records of Speech_Grounding, 1 of 896 records of Audio_Grounding, 1 of 2,000 records of Sound_AQA"
    )


def test_tasks_are_null_where_no_record_names_one(tmp_path):
    path = write_records(tmp_path, [{"choices": TWO, "reference": "B", "prediction": "B"}])
    assert scored("air_bench", path, "strict").details == {"task_mean": None, "datasets": None}


@pytest.mark.parametrize(
    ("record", "match"),
    [
        (
            {"response": "A", "answer_gt": "maybe", "choice_a": "yes", "choice_b": "no"},
            "line 1, `answer_gt`: .* got 'maybe'",
        ),
        (
            {"response": "A", "answer_gt": "A", "choice_a": "yes", "choice_b": "no"},
            "line 1, `answer_gt`: expected one of .* got 'A'",
        ),
        ({"response": "A", "answer_gt": "yes", "choice_a": "yes"}, "line 1, `choices`: expected two"),
        ({"prediction": "A", "reference": "A", "choices": {"A": "yes", "B": ""}}, "line 1, `choices`: expected two"),
        ({"prediction": "A", "reference": "A"}, "line 1: `choices` is missing: expected choices or choice_a"),
    ],
)
def test_records_that_cannot_be_scored(tmp_path, record, match):
    with pytest.raises(ValueError, match=match):
        scored("air_bench", write_records(tmp_path, [record]), "strict")


ROW = {
    "path": "a.wav", "question": "Who speaks?", "choice_a": "male", "choice_b": "female", "choice_c": None,
    "answer_gt": "female", "task_name": "Speaker_Gender_Recognition", "dataset_name": "meld", "uniq_id": 7,
}  # fmt: skip
SOUND = {
    "path": "b.wav", "question": "When does it bark?", "choice_a": [0, 1.5], "choice_b": 2, "choice_d": " never ",
    "answer_gt": "never", "task_name": "Audio_Grounding", "dataset_name": "AudioGrounding", "uniq_id": 8,
}  # fmt: skip


@pytest.fixture
def published(tmp_path):
    """published(row, ...) -> a folder with such rows and the recordings of ROW and SOUND."""

    def build(*rows, below="."):
        folder = tmp_path / below
        for name in ("Speaker_Gender_Recognition_meld/a.wav", "Audio_Grounding_AudioGrounding/b.flac"):
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            (folder / name).write_bytes(b"RIFF")
        (folder / "Foundation_meta.json").write_text(json.dumps(rows))
        return tmp_path

    return build


@pytest.mark.parametrize("below", [".", "Foundation"])
def test_published_layout(published, below):
    folder = published(ROW, SOUND, below=below)
    [question] = air_bench.load(folder)
    assert (question.id, question.text) == ("Speaker_Gender_Recognition-meld-7", "Who speaks?")
    assert (question.reference, question.facts["choices"]) == ("B", {"A": "male", "B": "female"})
    assert question.audios == (str(folder / below / "Speaker_Gender_Recognition_meld" / "a.wav"),)
    assert air_bench.prompt(question, "{question}\n{choices}") == "Who speaks?\n(A) male\n(B) female"
    _, sound = air_bench.load(folder, part="all")
    assert (sound.reference, sound.facts["choices"]) == ("D", {"A": "[0, 1.5]", "B": "2", "D": "never"})
    assert sound.audios == (str(folder / below / "Audio_Grounding_AudioGrounding" / "b.flac"),)
    assert sound.facts["task"] == "Audio_Grounding" and sound.facts["dataset"] == "AudioGrounding"


def test_speech_is_nine_of_the_published_tasks():
    speech = {name for name in air_bench.PUBLISHED if name.startswith(air_bench.SPEECH)}
    assert (len(speech), len(air_bench.PUBLISHED), sum(air_bench.PUBLISHED.values())) == (9, 19, 24683)


@pytest.mark.parametrize(
    ("change", "error", "key"),
    [
        ({"path": "c.wav"}, FileNotFoundError, "path"),
        ({"answer_gt": "neither"}, ValueError, "answer_gt"),
        ({"answer_gt": None}, ValueError, "answer_gt"),
        ({"choice_a": None}, ValueError, "choice_b"),
        ({"task_name": None}, ValueError, "task_name"),
        ({"uniq_id": None}, ValueError, "uniq_id"),
    ],
)
def test_errors_name_file_row_and_key(published, change, error, key):
    folder = published(ROW, {**ROW, **change})
    with pytest.raises(error, match=rf"Foundation_meta\.json.*row 2.*`{key}`"):
        air_bench.load(folder)
