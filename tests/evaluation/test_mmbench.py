"""MMBench: its published table, with long, shared and missing cells; scores per category."""

import base64
import csv

import pytest

from moka_peft.evaluation import BENCHMARKS, ask, mmbench

from .records import scored, write_records

COLUMNS = ["index", "question", "hint", "A", "B", "C", "D", "answer", "category", "image"]
LONG = b"\xff\xd8" + bytes(100_000)  # 133,336 characters of base64: more than `csv` reads by itself
OTHER = b"\xff\xd8other"


def encoded(content):
    return base64.b64encode(content).decode()


ROWS = [
    ["0", "Which one?", "Look at\nboth.", "cat", "dog", "cow", "emu", "B", "animals", encoded(LONG)],
    ["1", "Is it red?", "nan", "yes", "no", "", "nan", "A", "colours", "1000001"],
    ["1000001", 'Is it "red"?', "", "no", "yes", "", "", "B", "colours", encoded(OTHER)],
    ["1000000", "Which one?", "", "dog", "cow", "emu", "cat", "A", "animals", encoded(LONG)],
]


def write(folder, rows=ROWS, columns=COLUMNS, name="mmbench_dev_en_20231003.tsv"):
    folder.mkdir(exist_ok=True)
    with (folder / name).open("w", encoding="utf-8", newline="") as file:
        csv.writer(file, delimiter="\t").writerows([columns, *rows])
    return folder


def test_published_layout(tmp_path):
    limit = csv.field_size_limit()
    first, second, third, fourth = mmbench.load(write(tmp_path))
    assert csv.field_size_limit() == limit
    assert [one.id for one in (first, second, third, fourth)] == ["0", "1", "1000001", "1000000"]
    assert (first.text, first.reference) == ("Look at\nboth.\nWhich one?", "B")
    assert first.facts == {"choices": {"A": "cat", "B": "dog", "C": "cow", "D": "emu"}, "category": "animals"}
    assert (second.text, second.facts["choices"]) == ("Is it red?", {"A": "yes", "B": "no"})
    assert (first.images, third.images) == ((LONG,), (OTHER,))
    assert second.images == third.images  # by the index of a row further down
    assert first.images[0] is fourth.images[0]  # decoded once

    prompt = BENCHMARKS["mmbench"].prompt(second, mmbench.BENCHMARK.template)
    assert prompt == "<image>\nIs it red?\nA. yes\nB. no\nPlease answer with the letter of the right choice."
    [image, _] = ask(second, prompt).messages[0]["content"]
    assert image == {"type": "image", "image": OTHER}


def test_a_published_name_goes_before_others(tmp_path):
    write(write(tmp_path, ROWS[2:3]), ROWS, name="mine.tsv")
    assert len(mmbench.load(tmp_path)) == 1
    assert len(mmbench.load(write(tmp_path / "only", name="mine.tsv"))) == 4
    with pytest.raises(
        FileNotFoundError, match=r"the table of questions of `mmbench` not found: .*MMBench_DEV_EN\.tsv"
    ):
        mmbench.load(write(write(tmp_path / "two", name="a.tsv"), name="b.tsv"))


def changed(**cells):
    return [[cells.get(column, cell) for column, cell in zip(COLUMNS, ROWS[2], strict=True)]]


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        (changed(answer=""), r"20231003\.tsv, row 1, `answer`: .*the test split is published without"),
        (changed(answer="D"), r"row 1, `answer`: expected one of A, B, got 'D'"),
        (changed(A="nan"), r"row 1, `A`: expected at least two choices, got 1"),
        (changed(question=""), r"row 1, `question`: expected a text"),
        (changed(image="7777"), r"row 1, `image`: expected base64 or the index of a row that has it, got '7777'"),
        (changed(image="1000001"), r"row 1, `image`: expected base64 or the index"),  # the row's own
        (changed(image="/9j/$"), r"row 1, `image`: expected base64 or the index"),
        (changed(image=""), r"row 1, `image`: expected a text"),
    ],
)
def test_wrong_rows_are_errors(tmp_path, rows, message):
    with pytest.raises(ValueError, match=message):
        mmbench.load(write(tmp_path, rows))


def test_a_table_without_answers_is_the_test_split(tmp_path):
    rows = [[cell for column, cell in zip(COLUMNS, row, strict=True) if column != "answer"] for row in ROWS]
    with pytest.raises(ValueError, match=r"line 1: column `answer` is missing: .*the test split is published without"):
        mmbench.load(write(tmp_path, rows, [column for column in COLUMNS if column != "answer"]))


def test_categories(tmp_path):
    rows = [
        {"id": str(number), "reference": "A", "prediction": said, "category": category}
        for number, (said, category) in enumerate([("A", "x"), ("B", "x"), ("A", "y"), ("A", None)])
    ]
    result = scored("mmbench", write_records(tmp_path, rows), "strict")
    assert result.score == 75.0
    assert {name: share.score for name, share in result.groups.items()} == {"x": 50.0, "y": 100.0}
