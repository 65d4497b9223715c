"""The measurement of the runner beside `generate`, on a few questions and short answers."""

import json

from moka_peft.analysis.speed import rounds


def test_it_times_the_runner_and_generate(load, monkeypatch, tmp_path, capsys):
    monkeypatch.setattr(rounds, "why_void", lambda seconds, load: [])
    brief = ["--rounds", "1", "--warmup", "0", "--samples", "3", "--layers", "2", "--batch", "2", "--new-tokens", "2"]
    assert load("bench_eval").main([*brief, "--out", str(tmp_path / "eval.json")]) == 0
    record = json.loads((tmp_path / "eval.json").read_text())
    assert record["command"].startswith("python bench/bench_eval.py --rounds 1") and record["bar"] == 1.05
    for name in ("pope", "mmau"):
        facts = record["benchmarks"][name]
        assert facts["questions"] >= 3 and facts["new_tokens"] == 2
        for kind in ("wall", "processor"):
            assert [*facts[kind]] == ["generate", "generate again", "runner", "runner, 1 worker"]
            assert facts[kind]["runner"]["seconds"] > 0 and facts[kind]["generate"]["over_generate"] == 1
    assert "| pope | runner | " in capsys.readouterr().out
