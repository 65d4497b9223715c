"""The simulation of many ranks, with few."""

import importlib
from pathlib import Path

import pytest

BENCH = Path(__file__).parents[2] / "bench"


@pytest.mark.parametrize("ranks", [8, 21])
def test_every_sample_is_read_once_and_an_index_evens_out_tokens(monkeypatch, tmp_path, ranks):
    monkeypatch.syspath_prepend(str(BENCH))
    record = importlib.import_module("simulated_ranks").main(
        ["--ranks", str(ranks), "--result", str(tmp_path / "r.json")]
    )
    assert record["samples"] == ranks * 200 + 37
    for name, found in record["plans"].items():
        low, high = found["tokens_of_a_rank_over_the_mean"]
        assert found["every_sample_exactly_once"]
        if name.startswith("index"):
            assert 0.95 < low <= high < 1.05, name
