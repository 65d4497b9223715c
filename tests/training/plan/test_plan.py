"""What a plan says of full-size recipes: parameters, trained share, memory per GPU, tokens per step."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from transformers import LlamaConfig

from moka_peft.cli import call
from moka_peft.training.plan.architecture import adapted, base_on
from moka_peft.training.plan.memory import count_held, count_parts, optimizer_bytes
from moka_peft.training.plan.plan import make_plan
from moka_peft.training.plan.report import as_text
from moka_peft.training.plan.samples import sample_lengths
from moka_peft.training.recipe import Adapter
from moka_peft.training.recipe_file import RecipeError, load_recipe

QFORMER = "{type: qformer, num_queries: 32, num_layers: 2}"
AVT = f"""
model:
  text: meta-llama/Llama-2-7b-chat-hf
  vision: {{name: openai/clip-vit-large-patch14, feature_layers: [23], projector: {QFORMER}}}
  audio: {{name: weights/BEATs_iter3_plus_AS2M.pt, segment_seconds: 2.0, projector: {QFORMER}}}
  start_from: [runs/nowhere]
  dtype: bfloat16
data:
  train: {{name: music_avqa, folder: data/nowhere}}
  media: {{video_frames: 10, audio_segments: 10}}
adapter: {{method: moka, r: 4}}
train: {{projectors: true}}
training: {{epochs: 3, batch_size: 4, gradient_accumulation: 2, gradient_checkpointing: true, bf16: true}}
output_dir: runs/x
"""
PUBLISHED = {"lora": 1.20, "moka": 1.33}  # per cent, MokA (arXiv 2506.05191), LLaMA2-7B audio-visual-text


@pytest.fixture
def recipe(tmp_path):
    path = tmp_path / "avt.yaml"
    path.write_text(AVT)
    return path


@pytest.fixture
def small(recipe, tmp_path):
    """The same recipe on a language model that is a folder here, with nothing but a config in it."""
    folder = tmp_path / "small"
    LlamaConfig(
        hidden_size=64, intermediate_size=96, num_hidden_layers=1, num_attention_heads=4, vocab_size=500
    ).save_pretrained(folder)
    recipe.write_text(AVT.replace("meta-llama/Llama-2-7b-chat-hf", str(folder)))
    return recipe


def aligned(tmp_path, name: str, source: str):
    text = AVT[AVT.index("data:") :].replace("train: {projectors: true}", "").replace("music_avqa", source)
    path = tmp_path / "aligned.yaml"
    path.write_text(f"model: {{name: {name}, dtype: bfloat16}}\n{text}")
    return path


@pytest.fixture(scope="module")
def tiny():
    """A model of the quickstart's shape with MokA, on the meta device."""
    base = base_on("meta", {"name": "tiny-avt", "dtype": "float32"})
    return adapted(base, Adapter(method="moka", r=4).model_dump(), ["projectors"])


@pytest.mark.parametrize("method", PUBLISHED)
def test_the_trained_share_is_the_published_one(recipe, method):
    section = load_recipe(recipe, without_files=True).model.model_dump()
    model = adapted(base_on("meta", section), Adapter(method=method, r=4).model_dump(), ["projectors"])
    parts = count_parts(model)
    total, trained = (sum(getattr(part, name) for part in parts.values()) for name in ("parameters", "trained"))
    assert 100 * trained / total == pytest.approx(PUBLISHED[method], abs=0.05)
    inputs, outputs = 6 * 4096 + 11008, 5 * 4096 + 2 * 11008  # of a layer's seven Linears
    routes = {"lora": 1, "moka": 3}[method]
    assert parts["adapter"].trained == 32 * 4 * (routes * inputs + outputs)
    assert parts["text"].parameters == 6_738_415_616 + 2 * 3 * 4096  # three placeholders, in embeddings and head
    assert parts["vision"].parameters == 303_179_776 and parts["text"].trained == parts["vision"].trained == 0
    trained_again, counted_by_peft = model.get_nb_trainable_parameters()
    assert trained == trained_again and counted_by_peft - total == parts["projectors"].parameters  # and their originals


def test_a_plan_adds_up(recipe):
    plan = make_plan(load_recipe(recipe, without_files=True), gpus=8)
    adapter, projectors = plan.parts["adapter"].parameters, plan.parts["projectors"].parameters
    frozen = plan.parameters - adapter - projectors
    in_copies = 4 * projectors + 2 * projectors  # float32 ones that train, and their originals
    assert plan.held.weights == pytest.approx(2 * frozen + in_copies + 4 * adapter, rel=1e-4)
    assert plan.held.optimizer == 2 * plan.held.gradients == 8 * plan.trained
    assert plan.samples[0].media == {"video": 320, "audio": 320} and plan.samples_per_step == 64
    assert plan.tokens_per_step == 64 * plan.longest.total
    shown = plan.activations
    assert shown.projectors + shown.decoder + shown.logits < shown.peak < plan.bytes_per_gpu - plan.held.total
    layer_inputs = 32 * 4 * plan.row_length * 4096 * 2
    assert shown.decoder == pytest.approx(layer_inputs, rel=0.08)  # and what the last norm keeps


def test_sharding_divides_what_is_held(tiny):
    whole = count_held(tiny, optimizer=None)
    ddp, zero2, fsdp = (count_held(tiny, optimizer=None, gpus=8, strategy=s) for s in ("ddp", "zero2", "fsdp"))
    assert ddp.weights == whole.weights and ddp.buckets == ddp.gradients == whole.gradients and whole.buckets == 0
    assert zero2.weights == whole.weights and zero2.optimizer == whole.optimizer // 8
    assert fsdp.weights == whole.weights // 8 and 0 < fsdp.gathered < whole.weights
    assert count_held(tiny, optimizer=None, gpus=1, strategy="fsdp") == whole


def test_weights_are_those_of_the_real_model(tiny):
    base = base_on("cpu", {"name": "tiny-avt", "dtype": "float32"})
    real = adapted(base, Adapter(method="moka", r=4).model_dump(), ["projectors"])
    assert count_held(tiny, optimizer=None) == count_held(real, optimizer=None)
    shapes = [{name: weight.shape for name, weight in model.named_parameters()} for model in (tiny, real)]
    assert shapes[0] == shapes[1]


@pytest.mark.parametrize("name", [None, "adamw_torch", "adamw_8bit", "sgd", "lion_32bit", "paged_adamw_8bit"])
def test_optimizer_states_are_as_large_as_counted(name):
    large, small = torch.zeros(512, 512), torch.zeros(10)
    bytes_ = {None: 8, "adamw_torch": 8, "adamw_8bit": 2 * (1 + 4 / 256), "sgd": 0, "lion_32bit": 4}.get(name)
    expected = 2 * (1 + 4 / 256) if bytes_ is None else bytes_
    assert optimizer_bytes(large, name) == large.numel() * expected
    assert optimizer_bytes(small, name) == 10 * {"sgd": 0, "lion_32bit": 4}.get(name, 8)


def test_eight_bit_states_are_bitsandbytes_own():
    optimizers = pytest.importorskip("bitsandbytes").optim
    weight = torch.nn.Parameter(torch.zeros(512, 512))
    optimizer = optimizers.AdamW8bit([weight])
    optimizer.init_state(optimizer.param_groups[0], weight, 0, 0)
    state = optimizer.state[weight]
    real = sum(state[name].nbytes for name in ("state1", "state2", "absmax1", "absmax2"))
    assert optimizer_bytes(weight, "adamw_8bit") == real


def test_an_unknown_optimizer_and_a_wrong_strategy_are_refused(recipe):
    with pytest.raises(ValueError, match="`training.optimizer` galore is none whose states"):
        optimizer_bytes(torch.zeros(2), "galore")
    with pytest.raises(ValueError, match="expected one of ddp, fsdp, zero2, zero3 and 1 or more, got tp and 1"):
        make_plan(load_recipe(recipe, without_files=True), strategy="tp")


def test_an_unknown_model_says_how_to_give_it(recipe):
    unknown = load_recipe(recipe, ["model.text=someone/nothing"], without_files=True)
    with pytest.raises(ValueError, match="`someone/nothing` is no model whose sizes.*config.json into a folder"):
        make_plan(unknown)


def test_without_files_nothing_else_is_let_through(recipe):
    with pytest.raises(RecipeError, match="no such folder: data/nowhere"):
        load_recipe(recipe)
    with pytest.raises(RecipeError, match="batch_size") as error:
        load_recipe(recipe, ["training.batch_size=0"], without_files=True)
    assert len(error.value.problems) == 1


def test_a_folder_with_a_config_is_enough(small):
    assert make_plan(load_recipe(small, without_files=True)).parts["text"].parameters == 99_392


def test_lengths_come_from_an_index_or_the_command_line(small, tmp_path):
    index = tmp_path / "lengths.npz"
    np.savez(index, lengths=np.array([700, 900]))
    plan = make_plan(load_recipe(small, [f"data.train.index={index}"], without_files=True))
    assert plan.longest.total == 900 and "the longest in" in plan.longest.basis
    plan = make_plan(load_recipe(small, without_files=True), tokens=1000)
    assert plan.longest.text == 360 and plan.row_length == 1000
    with pytest.raises(ValueError, match="expected more than the 640 media tokens"):
        make_plan(load_recipe(small, without_files=True), tokens=600)


@pytest.mark.parametrize(
    ("name", "source", "media"),
    [
        ("llava-hf/llava-1.5-7b-hf", "llava_instruct", {"image": 576}),
        ("Qwen/Qwen2.5-VL-7B-Instruct", "a_okvqa", {"image": 392}),
        ("Qwen/Qwen2-Audio-7B-Instruct", "librispeech", {"audio": 313}),
        ("Qwen/Qwen2.5-Omni-7B", "music_avqa", {"video": 1470, "audio": 750}),
    ],
)
def test_media_of_aligned_models_are_counted(tmp_path, name, source, media):
    recipe = load_recipe(aligned(tmp_path, name, source), without_files=True)
    base = base_on("meta", recipe.model.model_dump())
    (sample,) = sample_lengths(recipe.data, recipe.model, base)
    assert sample.media == media and sample.units.keys() == media.keys()


def test_an_aligned_model_is_planned(tmp_path):
    recipe = load_recipe(aligned(tmp_path, "llava-hf/llava-1.5-7b-hf", "llava_instruct"), without_files=True)
    plan = make_plan(recipe)
    assert not plan.towers_run and "own towers" in as_text(plan)[-1] and "576 image (1 image)" in as_text(plan)[-3]
    assert plan.parts["adapter"].trained == plan.trained and plan.activations.decoder > 0
    assert plan.parts["vision"].parameters == 303_507_456 and plan.parts["projectors"].parameters == 20_979_712


def test_the_command_prints_text_and_json(small, capsys):
    assert call(["plan", str(small), "--gpus", "2", "--memory-gb", "2"]) == 0
    text = capsys.readouterr().out
    assert "It does not fit into 2 GiB" in text and "320 video (10 frames) + 320 audio (10 segments)" in text
    assert call(["plan", str(small), "adapter.method=lora", "--memory-gb", "80", "--json"]) == 0
    facts = json.loads(capsys.readouterr().out)
    assert facts["fits"] is True and facts["parameters"]["total"] == sum(
        p["parameters"] for p in facts["parts"].values()
    )
    held = [facts["bytes_per_gpu"][name] for name in ("weights", "gradients", "optimizer", "runtime")]
    assert facts["bytes_per_gpu"]["total"] == sum(held) + facts["bytes_per_gpu"]["activations"]["peak"]
