"""MMAU: its own rule for the words of an answer, and its tasks and difficulties."""

import json

import pytest

from moka_peft.evaluation import mmau

from .records import judge, scored, write_records

NUMBERS = ["Two", "Twenty two", "Three"]
PEOPLE = ["A child", "A woman", "An adult man"]
CHORDS = ["F#:7/1", "F:7/1", "B:maj/1"]


@pytest.mark.parametrize(
    ("prediction", "reference", "choices", "parsed", "right"),
    [
        ("Man", "Man", ["Man", "Woman"], "Man", 1),
        ("<s>The speaker is a WOMAN.</s>", "Woman", ["Man", "Woman"], "Woman", 1),
        ("Woman</s>", "Woman", ["It's a man", "Woman"], "Woman", 1),  # the mark's s is no word of a wrong choice
        ("Not a man but a woman", "Woman", ["Man", "Woman"], None, 0),  # two choices are named
        ("A woman", "A woman", PEOPLE, "A woman", 1),  # "a" of a wrong choice is the answer's own
        ("An adult man", "An adult man", PEOPLE, "An adult man", 1),
        ("(A) An adult man", "An adult man", PEOPLE, None, 0),  # "a" is a word of other choices alone
        ("An adult", "An adult man", PEOPLE, None, 0),  # a word of the answer is missing
        ("Two", "Twenty two", NUMBERS, "Two", 0),
        ("Twenty two", "Two", NUMBERS, "Twenty two", 0),
        ("Twenty two", "Twenty two", NUMBERS, "Twenty two", 1),
        ("I know", "no", ["yes", "no"], None, 0),  # "know" is a word of its own
        ("F:7/1", "F:7/1", CHORDS, "F:7/1", 1),  # the same words as "F#:7/1": either is right
        ("F:7/1", "F#:7/1", CHORDS, "F#:7/1", 1),
        ("A woman", "a  Woman", PEOPLE, "a  Woman", 1),  # an answer that is no choice by its letters
        ("B", "Woman", ["Man", "Woman"], None, 0),
        ("", "Woman", ["Man", "Woman"], None, 0),
        ("", "?", ["?", "!"], None, 0),
    ],
)
def test_rule(prediction, reference, choices, parsed, right):
    for protocol in ("strict", "authors"):
        judged = judge("mmau", prediction, reference, protocol, choices=choices)
        assert (judged.parsed, judged.right) == (parsed, right), protocol


def test_tasks_and_difficulties(tmp_path):
    rows = [
        {"answer": "Man", "model_output": "Man", "task": "speech", "difficulty": "easy"},
        {"answer": "Man", "model_prediction": "Woman", "task": "speech", "difficulty": "hard"},
        {"reference": "Man", "prediction": "?", "task": "music", "difficulty": "easy"},
        {"reference": "Man", "prediction": "Man"},
    ]
    path = write_records(tmp_path, [{"choices": ["Man", "Woman"], **row} for row in rows])
    result = scored("mmau", path, "strict")
    assert (result.score, result.records, result.unparseable) == (50.0, 4, 1)
    shares = {name: (share.right, share.records) for name, share in result.groups.items()}
    assert shares == {
        "easy": (1, 2), "hard": (0, 1), "music": (0, 1), "music/easy": (0, 1),
        "speech": (1, 2), "speech/easy": (1, 1), "speech/hard": (0, 1),
    }  # fmt: skip
    assert result.partial == "2 of 333 records of speech, 1 of 334 records of music"


@pytest.mark.parametrize(("count", "partial"), [(333, None), (300, "300 of 333 records of speech")])
def test_one_task_alone_is_a_whole_result(tmp_path, count, partial):
    row = {"answer": "Man", "model_output": "Man", "task": "speech", "choices": ["Man", "Woman"]}
    assert scored("mmau", write_records(tmp_path, [row] * count), "strict").partial == partial


@pytest.mark.parametrize("choices", [None, "Man", ["Man"], ["Man", 2]])
def test_records_without_choices(tmp_path, choices):
    path = write_records(tmp_path, [{"answer": "Man", "model_output": "Man", "choices": choices}])
    with pytest.raises(ValueError, match=r"records.jsonl, line 1.*`choices`.*\. (Correct|Add)"):
        scored("mmau", path, "strict")


def test_an_empty_reference_is_refused(tmp_path):  # all its words, none, are in every answer
    path = write_records(tmp_path, [{"answer": " ", "model_output": "Nobody", "choices": ["Man", "Woman"]}])
    with pytest.raises(ValueError, match="line 1, `answer`: expected the text of a choice, got ' '. Correct"):
        scored("mmau", path, "strict")


ROW = {
    "id": "3f-1", "audio_id": "./test-mini-audios/3f-1.wav", "question": "Who speaks?", "choices": ["Man", "Woman"],
    "answer": "Woman", "dataset": "AudioSet", "task": "speech", "split": "test-mini", "category": "Reasoning",
    "sub-category": "Acoustic Source Inference", "difficulty": "medium",
}  # fmt: skip


@pytest.fixture
def published(tmp_path):
    """published(row, ...) -> a folder with such rows and the recordings test-mini-audios/3f-1.wav, audios/3f-2.wav."""

    def build(*rows):
        for name in ("test-mini-audios/3f-1.wav", "audios/3f-2.wav"):
            (tmp_path / name).parent.mkdir(exist_ok=True)
            (tmp_path / name).write_bytes(b"RIFF")
        (tmp_path / "mmau-test-mini.json").write_text(json.dumps(rows))
        return tmp_path

    return build


def test_published_layout(published):
    other = {**ROW, "id": "3f-2", "audio_id": "./test-mini-audios/3f-2.wav", "task": "music"}
    folder = published(ROW, other)
    question, second = mmau.load(folder)
    assert (question.id, question.text, question.reference) == ("3f-1", "Who speaks?", "Woman")
    assert question.audios == (str(folder / "test-mini-audios/3f-1.wav"),)
    assert second.audios == (str(folder / "audios/3f-2.wav"),)
    assert question.facts == {key: ROW[key] for key in ("task", "difficulty", "category", "sub-category", "choices")}
    assert [found.id for found in mmau.load(folder, task="music")] == ["3f-2"]
    assert mmau.prompt(question, "<audio>{question}\n{choices}") == "<audio>Who speaks?\n- Man\n- Woman"


@pytest.mark.parametrize(
    ("change", "error", "key"),
    [
        ({"audio_id": "./test-mini-audios/3f-9.wav"}, FileNotFoundError, "audio_id"),
        ({"choices": "Man"}, ValueError, "choices"),
        ({"choices": ["Man"]}, ValueError, "choices"),
        ({"answer": None}, ValueError, "answer"),
        ({"question": ""}, ValueError, "question"),
        ({"task": "Speech"}, ValueError, "task"),
    ],
)
def test_errors_name_file_row_and_key(published, change, error, key):
    folder = published(ROW, {**ROW, **change})
    with pytest.raises(error, match=rf"mmau-test-mini\.json.*row 2.*`{key}`"):
        mmau.load(folder)
