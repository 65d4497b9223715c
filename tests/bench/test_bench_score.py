"""The timing of scoring: its made-up records are of the released forms, for every benchmark."""

import json
from pathlib import Path

import pytest

from moka_peft.evaluation import BENCHMARKS, PROTOCOLS, read_records, summarise


@pytest.mark.parametrize("name", BENCHMARKS)
def test_made_up_records_are_right_wrong_and_unparseable(load, tmp_path: Path, name: str):
    bench_score = load("bench_score")
    path = bench_score.write_file(tmp_path / "records.jsonl", name, 200, seed=0)
    result = summarise(name, BENCHMARKS[name], read_records(path, BENCHMARKS[name].needs), "strict")
    assert 0 < result.unparseable < 60 and result.score is not None and 1 < result.score < 99 * len(bench_score.MME)


def test_all_is_recorded(load, tmp_path: Path, capsys):
    out = tmp_path / "score.json"
    load("bench_score").main(["--records", "40", "--rounds", "1", "--starts", "0", "--out", str(out)])
    record = json.loads(out.read_text())
    assert list(record["seconds"]) == list(BENCHMARKS)
    assert all(list(times) == [*PROTOCOLS, "comparison"] for times in record["seconds"].values())
    assert record["bar_is_met"] is True and record["records"] == 40 and record["environment"]["python"]
    assert "| pope |" in capsys.readouterr().out
