"""The measurement of the data path, on small files."""

import importlib
import json
import sys
from pathlib import Path

import pytest

BENCH = Path(__file__).parents[2] / "bench"


@pytest.fixture
def bench_data(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.syspath_prepend(str(BENCH))
    yield importlib.import_module("bench_data")
    for path in BENCH.glob("*.py"):
        sys.modules.pop(path.stem, None)


def test_it_measures_every_kind_and_what_is_decoded(bench_data, monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    for name, value in dict(FILES=2, SECONDS=3, SIDE=64, SMALL=32 * 32, RESULT=tmp_path / "data.json").items():
        monkeypatch.setattr(bench_data, name, value)
    monkeypatch.setattr(bench_data, "measure", lambda items, workers: len([items[i] for i in range(len(items))]))
    bench_data.main()
    record = json.loads((tmp_path / "data.json").read_text())
    assert {what.partition(",")[0] for what in record["throughput"]} == {"image", "audio", "video"}
    assert all(
        facts["samples_per_second"] == {"0 workers": 2, "1 workers": 2} for facts in record["throughput"].values()
    )
    used = record["decoded_of_file"]
    assert used["audio_seconds_read"] == {
        "limit None": {"read": 3, "in_file": 3},
        "limit 2.0": {"read": 2, "in_file": 3},
    }
    assert used["image_pixels_decoded"]["limit 1024"] == {"decoded": 1024, "in_file": 4096}
    assert used["video_frames_decoded"]["1 frame"] == {"decoded": 1, "in_file": 75}
    assert used["video_frames_decoded"]["8 frames of 2 seconds"]["decoded"] <= 50
