import json
from dataclasses import replace

import pytest

from moka_peft.cli import call
from moka_peft.evaluation import BENCHMARKS, Score

ROWS = [
    {"question": "a", "answer": "yes", "output": ["Yes"], "split": "random"},
    {"question": "b", "answer": "no", "output": ["I know"], "split": "random"},
    {"question": "c", "answer": "no", "output": ["Nothing"], "split": "popular"},
]


@pytest.fixture
def file(tmp_path):
    path = tmp_path / "pope" / "records.jsonl"
    path.parent.mkdir()
    path.write_text("".join(json.dumps(row) + "\n" for row in ROWS))
    return path


@pytest.mark.parametrize(("options", "protocol", "score"), [
    ([], "strict", 100 / 3),
    (["--protocol", "strict"], "strict", 100 / 3),
    (["--protocol", "authors"], "authors", 100.0),
])  # fmt: skip
def test_json_is_one_object(file, capsys, options, protocol, score):
    assert call(["score", "pope", str(file), *options, "--json"]) == 0
    told = json.loads(capsys.readouterr().out, parse_constant=pytest.fail)
    assert (told["benchmark"], told["protocol"], told["records"]) == ("pope", protocol, 3)
    assert told["score"] == pytest.approx(score) and told["unparseable"] == (2 if protocol == "strict" else 0)
    assert told["partial"] is True and "2 of 2,910 records of random" in told["partial_because"]
    assert told["groups"]["random"]["records"] == 2 and told["details"]["splits"]["popular"]["yes_ratio"] == 0.0
    assert 0 <= told["seconds"] < 5


def test_json_where_there_is_no_number(file, capsys, monkeypatch):
    scores = iter([Score(None, None), Score(float("nan"), (float("-inf"), 1.0), details={"f1": float("nan")})])
    monkeypatch.setitem(BENCHMARKS, "pope", replace(BENCHMARKS["pope"], score=lambda *_: next(scores)))
    for interval in (None, [None, 1.0]):
        assert call(["score", "pope", str(file), "--json"]) == 0
        told = json.loads(capsys.readouterr().out, parse_constant=pytest.fail)
        assert (told["score"], told["interval"]) == (None, interval)


def test_both_protocols_stand_side_by_side(file, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    assert call(["score", "pope", str(file)]) == 0
    shown = capsys.readouterr().out
    assert "pope* 33.33 6.15..79.23 100.00 3 2/0 0" in " ".join(shown.split())
    assert "* pope is partial: 2 of 2,910 records of random" in shown
    assert "random 2 50.00 9.45..90.55 100.00 34.24..100.00" in " ".join(shown.split())
    assert "splits.popular.accuracy 0.00 100.00" in " ".join(shown.split())
    assert max(map(len, shown.splitlines())) <= 80
    assert call(["score", "pope", str(file), "--protocol", "authors"]) == 0
    assert "pope* 100.00 43.85..100.00 3 0 0" in " ".join(capsys.readouterr().out.split())


def test_folders_of_moka_eval(file, capsys):
    for folder in (file.parent, file.parent.parent):
        assert call(["score", "pope", str(folder), "--json"]) == 0
        assert json.loads(capsys.readouterr().out)["records"] == 3


@pytest.mark.parametrize(("words", "code", "message"), [
    (["popes", "{file}"], 2, "BENCHMARK: expected one of {names}, got popes."),
    (["pope"], 2, "Missing argument 'FILE'"),
    (["pope", "{file}", "--protocol", "lax"], 2, "'lax'"),
    (["pope", "{file}.gone"], 1, "records `{file}.gone` not found. Correct the path."),
    (["pope", "{empty}"], 1, "of pope not found: expected {empty}/records.jsonl or {empty}/pope/records.jsonl."),
    (["pope", "{torn}"], 1, "{torn}, line 2: no JSON: "),
])  # fmt: skip
def test_what_is_wrong_is_one_line(file, tmp_path, capsys, words, code, message):
    places = {"file": file, "empty": tmp_path / "empty", "torn": tmp_path / "torn", "names": ", ".join(BENCHMARKS)}
    places["empty"].mkdir()
    places["torn"].write_text(file.read_text().splitlines()[0] + '\n{"output": ["Y')
    assert call(["score", *(word.format(**places) for word in words), "--json"]) == code
    shown = capsys.readouterr()
    assert message.format(**places) in shown.err and shown.err.count("\n") == 1 and shown.out == ""


def test_help_names_the_benchmarks(capsys):
    assert call(["score", "--help"]) == 0
    shown = " ".join(capsys.readouterr().out.split())
    assert [name for name in BENCHMARKS if name not in shown] == []
