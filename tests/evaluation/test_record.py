"""Files of records: the forms that can be read, and what is said of those that cannot."""

import json

import pytest

from moka_peft.evaluation import read_records
from moka_peft.evaluation.record import FORMS

from .records import write_records

OURS = {"id": "a-1", "question": "Which?", "reference": "cat", "prediction": "Cat.</s> "}


@pytest.mark.parametrize(("said", "right"), FORMS)
def test_each_form(tmp_path, said, right):
    path = write_records(tmp_path, [{said: " Cat", right: "cat", "extra": [1]}, {said: ["dog"], right: "cat"}])
    first, second = read_records(path, {})
    assert (first.prediction, first.reference, first.id, first.question) == (" Cat", "cat", "", "")
    assert first.facts["extra"] == [1]
    assert second.prediction == "dog" and second.where == f"{path}, line 2"


def test_ours_keep_their_names_and_facts(tmp_path):
    ours = OURS | {"parsed": {"strict": "cat"}, "right": {"strict": 1}, "subtask": "OCR", "output": "x", "answer": "y"}
    [record] = read_records(write_records(tmp_path, [ours]), {})
    assert (record.id, record.question, record.reference, record.prediction) == tuple(OURS.values())
    assert record.facts == {"subtask": "OCR", "output": "x", "answer": "y"}


def test_forms_may_be_mixed(tmp_path):
    path = write_records(tmp_path, [OURS, {"output": ["dog"], "answer": "cat", "id": None, "question": None}])
    assert [(one.id, one.question, one.prediction) for one in read_records(path, {})] == [
        ("a-1", "Which?", "Cat.</s> "),
        ("", "", "dog"),
    ]


@pytest.mark.parametrize("text", [
    '\ufeff{"id": "1", "prediction": "a", "reference": "b"}\n\n  \n{"id": 2, "prediction": "é", "reference": "b"}',
    '{"id": "1", "prediction": "a", "reference": "b"}\r\n{"id": 2, "prediction": "é", "reference": "b"}\r\n',
    '\ufeff\n [{"id": "1", "prediction": "a", "reference": "b"},\n {"id": 2, "prediction": "é", "reference": "b"}]\n',
    '{"id": "1", "prediction": "a", "reference": "b"}\n{"id": 2, "prediction": "é", "reference": "b", "x": "\u2028"}',
])  # fmt: skip
def test_lines_and_lists(tmp_path, text):
    path = tmp_path / "records.json"
    path.write_bytes(text.encode())
    assert [(one.id, one.prediction) for one in read_records(path, {})] == [("1", "a"), ("2", "é")]


def test_facts_come_from_either_key(tmp_path):
    rows = [{"output": "yes", "answer": "no", **fact} for fact in ({"image_path": "a"}, {"image": 0}, {"image": "b"})]
    rows[2]["image_path"] = "c"
    records = read_records(write_records(tmp_path, rows), {"image": ("image", "image_path")})
    assert [one.facts["image"] for one in records] == ["a", 0, "b"]
    with pytest.raises(ValueError, match=r"records.jsonl, line 1: `image` is missing: expected image or image_path"):
        read_records(
            write_records(tmp_path, [{"output": "", "answer": "", "image": None}]), {"image": ("image", "image_path")}
        )


@pytest.mark.parametrize(("text", "message"), [
    ("", "holds no records: expected at least one. Give another file."),
    (" \n\n", "holds no records"),
    ("[]", "holds no records"),
    ('{"prediction": "a", "reference": "b"}\n{"prediction": "a", "ref', ", line 2: no JSON: Unterminated string"),
    ('[{"prediction": "a", "reference": "b"}, {"pre', ": no JSON: Unterminated string .* torn last line."),
    ('{\n "prediction": "a",\n "reference": "b"\n}', ", line 1: no JSON: Expecting property.* Write one record a line"),
    ("[" * 100_000, ": no JSON: maximum recursion depth exceeded.* Write one record a line, or all as one list"),
    ('{"prediction": "a", "reference": "b"}\n7', ", line 2: expected an object, got '7'. Give a file of records."),
    ('[["a"]]', ", row 1: expected an object"),
    ('{"predict": "a", "answer": "b"}', ", line 1: has the keys of no known record: .*, got predict, answer. Give"),
    ("{}", "`predict` and `output`; .* got none. Give a file"),
    ('{"output": ["a", "b"], "answer": "c"}', ", line 1, `output`: expected a text, or a list of one, got .*'b'"),
    ('{"output": [], "answer": "c"}', "`output`: expected a text"),
    ('{"output": "a", "answer": null}', "`answer`: expected a text, .* got 'None'. Correct it."),
    ('{"id": 1, "prediction": "", "reference": ""}\n{"id": "1", "prediction": "", "reference": ""}',
     ", line 2: `id` 1 stands in .*records.json, line 1, too: expected each question once. Remove one."),
])  # fmt: skip
def test_what_cannot_be_read_is_named(tmp_path, text, message):
    path = tmp_path / "records.json"
    path.write_text(text)
    with pytest.raises(ValueError, match=f"records.json.*{message}"):
        read_records(path, {})


def test_no_utf_8(tmp_path):
    path = tmp_path / "records.jsonl"
    path.write_text(json.dumps(OURS), encoding="utf-16")
    with pytest.raises(ValueError, match=r"records.jsonl: expected UTF-8, got other bytes: .* Convert the file."):
        read_records(path, {})


def test_no_file(tmp_path):
    for path in (tmp_path / "gone.json", tmp_path):
        with pytest.raises(FileNotFoundError, match="not found. Correct the path."):
            read_records(path, {})


def test_an_id_twice_is_for_the_authors_files_to_have(tmp_path):
    """They count their duplicates, as their scripts do."""
    row = {"id": "1", "question": "?", "answer": "yes", "output": ["Yes"]}
    assert len(read_records(write_records(tmp_path, [row, row]), {})) == 2
