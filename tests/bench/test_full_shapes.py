"""The full shapes: their sizes, and the whole program on tiny ones."""

from __future__ import annotations

import json

import pytest
import torch

from moka_peft import route

PARAMETERS = {"qwen2.5-vl-7b": 8_292_166_656, "llama-3-8b": 8_030_261_248}  # of the published checkpoints


@pytest.mark.parametrize("name", PARAMETERS)
def test_shapes_have_the_published_number_of_parameters(load, name):
    model = load("shapes").SHAPES[name].build(tiny=False, device="meta")
    assert model.num_parameters() == PARAMETERS[name]
    assert {p.dtype for p in model.parameters()} == {torch.bfloat16}


@pytest.mark.parametrize("tiny", [True, False])
@pytest.mark.parametrize("name", PARAMETERS)
def test_chats_route_each_medium_to_its_own_question(load, name, tiny):
    shapes, chats = load("shapes"), load("chats")
    shape, lengths = shapes.SHAPES[name], chats.TINY_LENGTHS if tiny else chats.Lengths()
    writer = chats.ChatWriter(shape, lengths, torch.Generator().manual_seed(0), "cpu")
    batch, prompts = writer.training_batch(), writer.prompts()
    assert batch["input_ids"].shape == (1, lengths.sequence) and prompts["attention_mask"][1, 0] == 0
    for inputs in (batch, prompts):
        routing = route(inputs["input_ids"], shape.spec, inputs["attention_mask"])
        turns = [2, 2 if inputs is batch else 1][: len(routing.turn)]
        for row, last in enumerate(turns):
            for turn in range(1, last + 1):
                own = routing.turn[row] == turn
                assert (own & routing.is_media[row]).sum() == lengths.medium
                assert (own & routing.is_instruction[row]).sum() == lengths.question
    routing = route(batch["input_ids"], shape.spec, batch["attention_mask"])
    assert (batch["labels"] != -100).any() and (batch["labels"][routing.turn > 0] == -100).all()


@pytest.mark.parametrize("device", ["cpu", pytest.param("cuda", marks=pytest.mark.gpu)])
def test_runs_with_tiny(load, tmp_path, device):
    out = tmp_path / "results" / "full_shapes.json"
    assert load("full_shapes").main(["--device", device, "--tiny", "--out", str(out)]) == 0
    result = json.loads(out.read_text())
    assert result["environment"]["torch"] == torch.__version__ and "--tiny" in result["command"]
    train = [("train", "lora"), ("train", "moka")]
    start, end = [("build", None), ("forward", "base")], [("generate", "moka")]
    packed = [pair for _, method in train for pair in (("train", method), ("train packed", method))]
    nf4 = [("quantize", None), *train] if load("nf4").is_available() else [("train", None)]
    assert [(run["part"], run.get("method")) for run in result["runs"]] == [
        *[*start, *packed, *end, *nf4],
        *[*start, *train, *end, *nf4],
    ]
    assert result["summary"]["llama-3-8b"]["moka bf16"]["second_step_seconds"] > 0
    for run in result["runs"]:
        assert "not_measured" in run or (run["part"] == "generate") or (run["peak_gib"] is None) == (device == "cpu")
        if run["part"].startswith("train") and "not_measured" not in run:
            check_training(run)
        elif run["part"] == "generate":
            check_generation(run)


def check_training(run):
    assert run["adapter_dtypes"] == ["float32"] and run["second_step_seconds"] == run["seconds"][1]
    assert len(set(run["losses"])) == 2  # the adapter moved
    width, inner, keys, layers, rank = 64, 128, 32, 2, 8  # of the tiny decoder, which alone has adapters
    of_inputs, of_outputs = 6 * width + inner, width + 2 * keys + width + 2 * inner + width
    media = {"qwen2.5-vl-7b": 1, "llama-3-8b": 2}[run["model"]] if run["method"] == "moka" else 0
    assert run["trained_parameters"] == layers * rank * ((1 + media) * of_inputs + of_outputs)
    assert run["gradients"]["count"] == layers * 7 * (2 + media)
    assert run["gradients"]["zero_by_construction"] == 5 * media and run["gradients"]["zero"] == []
    if run["method"] == "moka":
        assert run["media_with_keys"] == 1.0


def check_generation(run):
    """In bfloat16: a merged adapter without its media path differs by 0.6 of its effect, rounding by 0.03."""
    assert run["new_tokens"] == 16 and len(set(run["prompt_tokens"])) == 2
    cached = [run[way]["max_difference"] for way in ("base", "unmerged", "merged")]
    assert max(*cached, run["merged_difference"]) < 0.1 * run["adapter_effect"]


def test_a_failing_model_is_recorded_and_the_next_one_runs(load, tmp_path, monkeypatch):
    full_shapes, out = load("full_shapes"), tmp_path / "full_shapes.json"

    def measure(shape, options):
        if shape.name == "llama-3-8b":
            raise MemoryError("too large")
        yield {"part": "train", "losses": [float("nan")], "gradients": {"zero": ["moka_B"]}}

    monkeypatch.setattr(full_shapes, "measure", measure)
    status = full_shapes.main(
        ["--device", "cpu", "--models", "llama-3-8b", "qwen2.5-vl-7b", "--steps", "3", "--out", str(out)]
    )
    runs = json.loads(out.read_text())["runs"]
    assert status == 1 and runs[0]["error"] == "MemoryError('too large')" and runs[1]["model"] == "qwen2.5-vl-7b"


def test_one_step_is_refused(load, capsys):
    with pytest.raises(SystemExit) as stop:
        load("full_shapes").main(["--device", "cpu", "--steps", "1"])
    assert stop.value.code == 2 and "--steps: expected at least 2, got 1" in capsys.readouterr().err


def test_without_bitsandbytes_nf4_is_said_not_measured(load, monkeypatch):
    full_shapes = load("full_shapes")
    monkeypatch.setattr(full_shapes, "nf4_is_available", lambda: False)
    runs = list(full_shapes.measure_nf4(None, None, {}, None))
    assert runs == [{"part": "train", "base_weights": "nf4", "not_measured": "bitsandbytes is not installed"}]
