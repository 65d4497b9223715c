"""`moka bench` on tiny sizes."""

import json
from pathlib import Path

import pytest

from moka_peft.analysis import speed
from moka_peft.analysis.speed import rounds
from moka_peft.cli import call


@pytest.fixture
def bench(monkeypatch: pytest.MonkeyPatch):
    """bench(...) -> exit code of two rounds on a model of one layer, or on the given one."""
    whole = speed.small_qwen2_5_vl
    monkeypatch.setattr(speed, "small_qwen2_5_vl", lambda **options: whole(width=64, layers=1, **options))
    monkeypatch.setattr(rounds, "why_void", lambda seconds, load: [])
    return lambda *options: call(["bench", *options, "--tokens", "80", "--batch", "2", "--rounds", "2"])


def test_shows_lora_and_moka_beside_the_frozen_base(bench, capsys):
    assert bench("--threads", "1") == 0
    shown = capsys.readouterr()
    assert all(name in shown.out for name in ("frozen base", "LoRA (PEFT)", "MokA", "80 tokens in 2 rows, rank 8"))
    assert "MokA's step takes" in shown.out and "base over base" in shown.out
    assert "4 providers, 2 rounds" in shown.err


def test_json_is_one_object(bench, capsys):
    assert bench("--json", "--rank", "4", "--checkpointing", "--dropout", "0.1", "--seed", "3") == 0
    found = json.loads(capsys.readouterr().out)
    assert (found["rank"], found["tokens"], found["batch"], found["run"]["void"]) == (4, 80, 2, [])
    assert (found["checkpointing"], found["dropout"], found["seed"]) == (True, 0.1, 3)
    assert found["environment"]["torch"] and found["moka_over_lora"]["total"] > 0
    for name in ("base", "lora", "moka"):
        assert found["providers"][name]["seconds"] > 0 and found["providers"][name]["kept_bytes"] > 0
    assert found["providers"]["moka"]["adapter_seconds"].keys() == {"median", "low", "high"}


def test_a_model_of_ones_own(bench, recipe: Path, capsys):
    assert bench(str(recipe.parent / "model")) == 0
    assert "recipe" not in capsys.readouterr().err


def test_void_timings_are_shown_and_fail(bench, monkeypatch, capsys):
    monkeypatch.setattr(rounds, "why_void", lambda seconds, load: ["others ran"])
    assert bench() == 1
    shown = capsys.readouterr()
    assert "frozen base" in shown.out
    expected = "moka: these timings do not count: others ran. Close other programs and repeat."
    assert shown.err.splitlines()[-1] == expected


@pytest.mark.parametrize(
    ("options", "code", "message"),
    [
        (["--tokens", "20"], 2, "`length` of a chat: expected at least 20 tokens a turn for 3 modalities, got 5"),
        (["--rank", "0"], 2, "Invalid value for '--rank'"),
        (["no/such-model-here"], 1, "moka: `model` 'no/such-model-here' cannot be opened: "),
    ],
)
def test_errors_are_one_line(options, code, message, capsys):
    assert call(["bench", *options]) == code
    shown = capsys.readouterr()
    assert message in shown.err and shown.err.count("\n") == 1 and shown.out == ""
