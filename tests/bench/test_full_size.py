"""bench/full_size.py on a reduced model: the same code as on a GPU, and a record that says what was measured."""

import json

import pytest

RECIPE = """
model:
  text: meta-llama/Llama-2-7b-chat-hf
  vision: {name: openai/clip-vit-large-patch14, feature_layers: [14, 23], projector: {type: qformer, num_queries: 4}}
  audio: {name: weights/BEATs_iter3_plus_AS2M.pt, segment_seconds: 1.0, projector: {type: mlp}}
  dtype: bfloat16
data:
  train: {name: ave, folder: data/nowhere}
  media: {video_frames: 2, audio_segments: 1}
adapter: {method: METHOD, r: 2}
train: {projectors: true}
training: {epochs: 3, batch_size: 2, gradient_accumulation: 2, gradient_checkpointing: true, bf16: true}
output_dir: runs/x
"""


@pytest.mark.parametrize("method", ["moka", "none"])
def test_a_reduced_recipe_trains_and_is_recorded(load, tmp_path, method):
    path, out = tmp_path / "stage2.yaml", tmp_path / "found.json"
    path.write_text(RECIPE.replace("METHOD", method).replace(", r: 2", ", r: 2" if method != "none" else ""))
    options = ["--device", "cpu", "--layers", "1", "--width", "32", "--steps", "3", "--warmup", "1"]
    assert load("full_size").main([str(path), *options, "--out", str(out)]) == 0
    found = json.loads(out.read_text())
    measured = found["measured"]
    assert len(measured["losses"]) == len(measured["seconds"]) == 3 and measured["losses"][0] > 5
    assert measured["losses"][2] < measured["losses"][0]  # one batch again and again
    assert measured["tokens_per_step"] == 2 * 2 * found["samples"][0]["total"]
    assert found["reduced"] == {"layers": 1, "width": 32} and measured["peak_gib"] is None
    assert found["planned"]["allocated"] < found["planned"]["total"]
    assert measured.get("media_with_keys") == (1.0 if method == "moka" else None)
    assert found["parameters"]["trained"] == sum(part["trained"] for part in found["parts"].values())


def test_llava_trains_on_images_that_its_plan_leaves_out(load, tmp_path):
    path, out = tmp_path / "llava.yaml", tmp_path / "found.json"
    text = RECIPE[RECIPE.index("data:") :].replace("METHOD", "moka").replace("train: {projectors: true}\n", "")
    path.write_text("model: {name: llava-hf/llava-1.5-7b-hf, dtype: bfloat16}\n" + text.replace("ave", "a_okvqa"))
    options = ["--device", "cpu", "--layers", "1", "--width", "32", "--steps", "2", "--warmup", "1"]
    assert load("full_size").main([str(path), *options, "--out", str(out)]) == 0
    found = json.loads(out.read_text())
    assert found["samples"][0]["media"] == {"image": 576} and found["measured"]["media_with_keys"] == 1.0
    assert "own towers" in found["not_counted"]


def test_what_cannot_be_measured_is_refused(load, tmp_path, capsys):
    path = tmp_path / "aligned.yaml"
    path.write_text(
        "model: {name: Qwen/Qwen2.5-VL-3B-Instruct}\n" + RECIPE[RECIPE.index("data:") :].replace("METHOD", "moka")
    )
    with pytest.raises(SystemExit, match="the inputs of qwen2_5_vl only its processor makes"):
        load("full_size").main([str(path), "--device", "cpu"])
    with pytest.raises(SystemExit, match="Add training.packing=false"):
        load("full_size").main([str(path), "training.packing=true", "--device", "cpu"])
    with pytest.raises(SystemExit):
        load("full_size").main([str(path), "--device", "cpu", "--steps", "3"])
    assert "--steps: expected more than the 3 of --warmup, got 3" in capsys.readouterr().err
