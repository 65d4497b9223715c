"""Each speed measurement on tiny sizes: it runs, and records what the documents quote."""

from __future__ import annotations

import json

import pytest

from moka_peft.analysis.speed import rounds

BRIEF = ["--rounds", "2", "--warmup", "1", "--attempts", "1", "--threads", "1"]


@pytest.fixture
def run(load, monkeypatch, tmp_path, capsys):
    """run("bench_delta", ...) -> what the program recorded and printed; runs count whatever the machine does."""
    monkeypatch.setattr(rounds, "why_void", lambda seconds, load: [])

    def start(name: str, *options: str) -> tuple[dict, str]:
        out = tmp_path / f"{name}.json"
        assert load(name).main([*BRIEF, "--out", str(out), *options]) == 0
        record = json.loads(out.read_text())
        assert record["environment"]["torch"] and record["command"].startswith(f"python bench/{name}.py --rounds 2")
        assert record["seed"] == 0 and record["dtype"] in ("float32", "bfloat16")
        return record, capsys.readouterr().out

    return start


def test_a_layer(run, load, tmp_path):
    plot = tmp_path / "images" / "plot.png"
    options = ["--widths", "16", "32", "--out-factors", "1", "--ranks", "2", "--loop-width", "32", "--plot", str(plot)]
    record, shown = run("bench_delta", *options, "--tokens", "160")
    assert [(shape["kind"], shape["width"], shape["batch"]) for shape in record["shapes"]] == [
        ("grid", 16, 4),
        ("grid", 32, 4),
        ("loop", 32, 8),
    ]
    small, dora, loop = (shape["providers"].keys() for shape in record["shapes"])
    both = {f"{method} r2 p{dropout}" for method in ("lora", "moka") for dropout in ("0", "0.05")}
    assert small == {"base", "base again", *both}
    assert dora - small == {"dora r2 p0", "dora r2 p0.05"}
    assert loop - small == {"per_sample_loop r2 p0", "per_sample_loop r2 p0.05"}
    kept = record["shapes"][0]["kept_bytes"]
    assert kept["base"] == 0 and kept["lora r2 p0"] == 160 * 2 * 4  # x, which all layers share, is not counted
    assert record["summary"]["shapes"] == 3 and plot.exists() and "| 160 | 16 | 16 | " in shown
    assert record["shapes"][0]["run"]["rounds"] == 2 and record["modalities"] == 3


def test_a_layer_resumes_where_it_was(run, load, monkeypatch, tmp_path):
    options = ["--widths", "16", "--out-factors", "1", "--ranks", "2", "--no-loop", "--plot", str(tmp_path / "a.png")]
    first, _ = run("bench_delta", *options, "--tokens", "160")
    bench = load("bench_delta")
    measured, whole = [], bench.measure_shape
    monkeypatch.setattr(bench, "measure_shape", lambda shape, o: measured.append(shape["tokens"]) or whole(shape, o))
    second, _ = run("bench_delta", *options, "--tokens", "160", "200", "--resume")
    assert measured == [200] and second["shapes"][0] == first["shapes"][0] and len(second["shapes"]) == 2
    _, shown = run("bench_delta", "--summary", "--plot", str(tmp_path / "a.png"))
    assert measured == [200] and "| 200 | 16 | 16 |" in shown


def test_training_steps(run):
    record, shown = run("bench_train_step", "--width", "64", "--layers", "1", "--tokens", "160", "--ranks", "2")
    assert [found["checkpointing"] for found in record["runs"]] == [False, True]
    for found in record["runs"]:
        assert len(found["providers"]) == 2 + 4 * 2 and len(found["ratios"]) == 3 * 2
        assert found["providers"]["moka r2 p0.05"]["tokens_per_second"] > 0
    off, on = (found["memory"]["lora r2 p0"]["kept_bytes"] for found in record["runs"])
    assert on < off and record["model"] == "small" and "| on | moka r2 p0 | lora r2 p0 |" in shown


def test_training_steps_in_the_full_shape(run):
    options = ["--full", "--tiny", "--tokens", "64", "--turns", "1", "--methods", "lora", "moka"]
    record, _ = run("bench_train_step", *options)
    (found,) = record["runs"]
    assert found["checkpointing"] and record["dtype"] == "bfloat16" and record["matmul_peak_tflops"] > 0
    assert set(found["providers"]) - {"base", "base again"} == {
        f"{method} r16 p0{kind}" for method in ("lora", "moka") for kind in ("", " as base")
    }
    linears, head = 2 * (64 * (64 + 32 + 32 + 64) + 3 * 64 * 128), 64 * 152064
    assert found["flops_per_token"] == {"model": 4 * (linears + head), "hardware": 4 * (linears + head) + 2 * linears}
    assert 0 < found["providers"]["base"]["share_of_peak_model"]


def test_inference(run):
    record, shown = run("bench_decode", "--width", "64", "--layers", "1", "--tokens", "160", "--new-tokens", "3")
    for phase in ("prefill", "decode_step", "generate"):
        assert set(record[phase]["providers"]) == {
            "base", "base again", "lora", "lora merged", "moka", "moka merged"
        }  # fmt: skip
        assert [ratio["theirs"] for ratio in record[phase]["ratios"]][:2] == ["lora", "lora merged"]
    for found in record["operators"].values():
        assert found["base"]["aten::mm"] + found["base"].get("aten::addmm", 0) > 0
        assert found["more_than_base"]["lora merged"] == {} != found["more_than_base"]["lora"]
        linear = ("aten::mm", "aten::addmm", "aten::bmm", "aten::linear", "aten::matmul")
        assert not set(linear) & set(found["more_than_base"]["moka merged"])  # no arithmetic of the adapter
    assert set(record["layer_call"]["more_microseconds"]) == {"lora", "lora merged", "moka", "moka merged"}
    assert "| decode_step | moka merged | base |" in shown


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:.*script_method. is deprecated:DeprecationWarning")  # inductor's own import
def test_compiled_against_eager(run):
    record, shown = run("bench_compile", "--layers", "1", "--tokens", "160", "--rank", "2")
    assert record["providers"].keys() == {"base", "base again", "lora", "lora compiled", "moka", "moka compiled"}
    assert "| moka compiled | moka |" in shown


def test_where_a_layers_time_goes(run):
    sizes = ["--widths", "16", "--tokens", "160", "--ranks", "2", "--dropouts", "0"]
    record, shown = run("profile_layer", *sizes)
    (layer,) = record["layers"]
    lora, moka = (layer["more_than_base"][name] for name in ("lora", "moka"))
    assert moka["softmax"] > 0 == lora["softmax"] and moka["indexing"] > lora["indexing"]
    assert lora["matmul"] > 0 and moka["matmul"] > 0 and moka["dropout"] == 0
    assert "| 16 | 2 | 0.0 | moka |" in shown


def test_growth(run):
    options = ["--widths", "16", "--ranks", "2", "--tokens", "64", "128", "--turn-length", "64", "--length", "160"]
    record, shown = run("bench_scaling", *options, "--modalities", "2", "4", "--turns", "1", "4")
    parts = {part["part"]: part for part in record["parts"]}
    assert {name: [size["value"] for size in part["sizes"]] for name, part in parts.items()} == {
        "tokens": [64, 128],
        "modalities": [2, 4],
        "turns": [1, 4],
        "alternating": [0, 1],
    }
    assert set(parts["tokens"]["run"]["base_over_base"]) == {"base 64", "base 128"}
    assert set(parts["turns"]["run"]["base_over_base"]) == {"base 1"}
    assert [size["turns"] for size in parts["tokens"]["sizes"]] == [
        1,
        2,
    ] and "| alternating | 16 | 2 | 0 to 1 |" in shown


def test_growth_is_per_token(load):
    scaling = load("bench_scaling")
    first, second = (
        scaling.Case(n, scaling.ChatLayout(batch=1, length=n), shares_base=False) for n in (100, 200)
    )  # fmt: skip
    seconds = {"base 100": [1.0], "moka 100": [2.0], "lora 100": [4.0], "base 200": [2.0], "moka 200": [5.0]}
    run = rounds.Run({**seconds, "lora 200": [8.0]}, 0, {})
    found = scaling.facts_of(run, second, first)
    assert found["moka"]["layer_growth_by_round"]["median"] == found["moka"]["layer_growth"] == 1.25
    assert found["moka"]["adapter_growth"] == 1.5 and found["lora"]["layer_growth"] == 1.0


def pair(adapter: float, total: float, share: float, kept: int, **more: object) -> dict:
    names = {"ours": "moka", "theirs": "lora", "rank": 4, "dropout": 0.0}
    ratio = {"adapter": adapter, "total": total, "their_share_of_base": share}
    return {**names, **ratio, "kept_bytes": kept, "their_kept_bytes": 100, **more}


def shape(*ratios: dict, kind: str = "grid", void: tuple = ()) -> dict:
    sizes = {"width": 8, "out": 16, "tokens": 32, "batch": 4}
    return {"kind": kind, **sizes, "run": {"void": list(void)}, "ratios": list(ratios)}


def test_summary_of_a_case_made_by_hand(load):
    report = load("delta_report")
    shapes = [
        shape(pair(0.5, 0.9, 0.4, 80), pair(0.7, 0.95, 0.10, 100), pair(3.0, 1.02, 0.09, 90)),
        shape(pair(0.8, 1.01, 0.2, 120, rank=16)),
        shape(pair(9.0, 9.0, 0.9, 900), void=["loud"]),
        shape(pair(4.0, 2.0, 0.9, 9, ours="per_sample_loop"), pair(0.1, 0.1, 0.5, 1), kind="loop"),
    ]
    assert report.summary(shapes) == {
        "shapes": 4,
        "void_shapes": 1,
        "lora_adapter_at_least_a_tenth_of_base": {
            "count": 3,
            "adapter_over_lora_median": 0.7,
            "adapter_over_lora_worst": 0.8,
            "worst_at": "32 tokens, 8 to 16, rank 16, dropout 0",
        },
        "elsewhere": {"count": 1, "total_over_lora_worst": 1.02},
        "total_over_lora_worst": 1.02,
        "kept_bytes_over_lora_worst": 1.2,
        "loop_over_moka_adapter_least": 4.0,
    }
    assert report.markdown([shape(pair(0.5, 0.9, 0.4, 80), pair(3.0, 1.02, 0.09, 90, rank=16))]).splitlines() == [
        "| tokens | in | out | r 4, p 0 | r 16, p 0 |",
        "| --- | --- | --- | --- | --- |",
        "| 32 | 8 | 16 | 0.50 | (1.02) |",
    ]


def test_summary_of_nothing(load, tmp_path):
    report = load("delta_report")
    assert report.summary([])["loop_over_moka_adapter_least"] is None
    report.plot([], tmp_path / "none.png")
    assert not (tmp_path / "none.png").exists()


def test_a_void_run_shows_in_the_exit_status(load, monkeypatch, tmp_path):
    monkeypatch.setattr(rounds, "why_void", lambda seconds, load: ["loud"])
    options = ["--widths", "16", "--ranks", "2", "--parts", "turns", "--length", "80", "--turns", "1", "2"]
    out = tmp_path / "scaling.json"
    assert load("bench_scaling").main([*BRIEF, *options, "--out", str(out)]) == 1
    assert json.loads(out.read_text())["parts"][0]["run"]["void"] == ["loud"]


@pytest.mark.parametrize("name", ["bench_train_step", "bench_decode"])
def test_the_full_shape_needs_a_gpu(load, capsys, name):
    with pytest.raises(SystemExit) as stop:
        load(name).main(["--full"])
    assert stop.value.code == 2 and "--full: the 7B shape needs a GPU" in capsys.readouterr().err
