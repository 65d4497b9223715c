"""The comparison on a GPU: what it would run, in which order, what it keeps; and, tiny, the whole of it on a CPU."""

import json
import tarfile
from argparse import Namespace
from pathlib import Path

import pytest

from moka_peft.analysis.compare.methods import PAPER_TABLE
from moka_peft.analysis.compare.results import RESULT


@pytest.fixture
def options(tmp_path: Path) -> Namespace:
    return Namespace(out=tmp_path / "out", recordings=None, tiny=False, processes=3, minutes=1.0)


def test_it_needs_a_gpu_unless_tiny(load, capsys, monkeypatch):
    bench = load("compare_gpu")
    monkeypatch.setattr(bench.torch.cuda, "is_available", lambda: False)
    with pytest.raises(SystemExit) as stop:
        bench.read_options([])
    assert stop.value.code == 2 and "a GPU is needed" in capsys.readouterr().err
    assert bench.read_options(["--tiny"]).processes == 1


def test_lora_and_moka_come_first_and_all_of_the_papers_table_after(load):
    methods = load("compare_gpu").METHODS
    assert methods[:2] == ("lora", "moka") and sorted(methods) == sorted(PAPER_TABLE)


def test_trials_ask_other_questions_than_the_comparison_and_of_lora_alone(load, options):
    bench = load("compare_gpu")
    options.recordings = Path("spoken")
    trials, final = bench.trial_words(options), bench.final_words(options, 0.002)
    assert trials[trials.index("--methods") + 1] == "lora"
    own = {"data.train.seed=100", "data.eval.seed=100", "data.eval.split=align"}
    assert own <= set(trials) and not own & set(final) and "training.learning_rate=0.002" in final
    last = dict(word.split("=", 1) for word in trials if "=" in word)  # of two, the later one counts
    assert last["data.eval.speakers"] == last["data.train.speakers"] == "[george, jackson, lucas, nicolas]"
    assert dict(word.split("=", 1) for word in final if "=" in word)["data.eval.speakers"] == "[theo, yweweler]"
    assert final[final.index("--processes") + 1] == "3" and "data.eval.folder=spoken" in final


def trials(scores: dict[float, float], *notes: str) -> dict:
    return {"notes": list(notes), "tables": [{"rows": [
        {"value": rate, "score": {"mean": score}} for rate, score in scores.items()
    ]}]}  # fmt: skip


def test_the_best_mean_is_chosen_when_all_trials_are_there(load):
    choose = load("compare_gpu").choose
    assert choose(trials({1e-3: 0.5, 2e-3: 0.7, 4e-3: 0.6})) == 2e-3
    assert choose(trials({1e-3: 0.5}, "1 of 2 runs are not finished; the tables hold the others.")) is None
    assert choose({}) is None


def test_nothing_begins_after_the_minutes(load, options, monkeypatch):
    bench = load("compare_gpu")
    done = []
    monkeypatch.setattr(bench, "build_models", done.append)
    assert bench.go_on(options, bench.Clock(0)) == "the models" and not done


def write_weights(out: Path, text: str) -> None:
    for folder, name in (("models/text", "model"), ("stage1", "adapter_model")):
        (out / folder).mkdir(parents=True, exist_ok=True)
        (out / folder / f"{name}.safetensors").write_text(text)


def test_runs_on_other_models_are_refused(load, options):
    models = load("large_models")
    write_weights(options.out, "first")
    models.check_base(options.out)
    models.check_base(options.out)
    write_weights(options.out, "second")
    with pytest.raises(ValueError, match=r"`out` holds runs on other models: expected weights \w{16}, got \w{16}"):
        models.check_base(options.out)


def test_the_archive_leaves_weights_and_samples_out(load, options):
    write_weights(options.out, "much")
    for name in ("cache/rows.raw", "runs/cells/one/checkpoints/a", "runs/cells/one/result.json"):
        (options.out / name).parent.mkdir(parents=True, exist_ok=True)
        (options.out / name).write_text("{}")
    path = options.out.parent / "results" / "all.tar.gz"
    load("compare_gpu").pack(options.out, path)
    with tarfile.open(path) as archive:
        assert [member.name for member in archive if member.isfile()] == ["out/runs/cells/one/result.json"]


@pytest.mark.slow
def test_the_whole_of_it_tiny_and_a_second_time(load, tmp_path, monkeypatch):
    bench = load("compare_gpu")
    words = ["--tiny", "--processes", "1", "--out", str(tmp_path / "out"), "--record", str(tmp_path / "record.json")]
    bench.main(words)
    record = json.loads((tmp_path / "record.json").read_text())
    assert record["trials"]["chosen_learning_rate"] in (5e-4, 1e-3)
    rank, parameters = record["comparison"]["tables"]
    assert (
        [row["variant"] for row in rank["rows"]] == [row["variant"] for row in parameters["rows"]] == ["lora", "moka"]
    )
    assert (
        record["environment"]["torch"] and record["models"]["text"]["parameters"] > 0 and record["stage1"]["steps"] == 2
    )
    assert record["comparison"]["command"].startswith("moka compare ") and record["command"].endswith("record.json")

    results = {path: path.read_bytes() for path in (tmp_path / "out").rglob(RESULT)}
    assert len(results) == 2 + 4
    monkeypatch.setattr("moka_peft.analysis.compare.cell.train", None)
    bench.main(words)
    again = json.loads((tmp_path / "record.json").read_text())
    assert again["comparison"] == record["comparison"] and {path: path.read_bytes() for path in results} == results
