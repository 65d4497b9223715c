"""What a plan says of full-size recipes: parameters, trained share, memory per GPU, tokens per step."""

from __future__ import annotations

import json

import numpy as np
import pytest
from transformers import ASTConfig, CLIPVisionConfig, LlamaConfig

from moka_peft.cli import call
from moka_peft.composite.published import published_config
from moka_peft.training.plan.architecture import adapted, base_on
from moka_peft.training.plan.memory import count_held, count_parts
from moka_peft.training.plan.plan import batch_of, make_plan
from moka_peft.training.plan.report import as_json, as_text
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
    """The same recipe on models that are folders here, with nothing but a config in them."""
    sizes = {"hidden_size": 64, "intermediate_size": 96, "num_hidden_layers": 1, "num_attention_heads": 4}
    LlamaConfig(**sizes, vocab_size=500).save_pretrained(tmp_path / "text")
    CLIPVisionConfig(**sizes, image_size=56, patch_size=14).save_pretrained(tmp_path / "vision")
    ASTConfig(**sizes).save_pretrained(tmp_path / "audio")
    text = AVT.replace("meta-llama/Llama-2-7b-chat-hf", str(tmp_path / "text")).replace("[23]", "[1]")
    text = text.replace("openai/clip-vit-large-patch14", str(tmp_path / "vision"))
    recipe.write_text(text.replace("weights/BEATs_iter3_plus_AS2M.pt", str(tmp_path / "audio")))
    return recipe


@pytest.fixture
def shallow(recipe, tmp_path):
    """The same recipe on the first four layers of its language model."""
    config = published_config("meta-llama/Llama-2-7b-chat-hf")
    config.num_hidden_layers = 4
    config.save_pretrained(tmp_path / "text")
    recipe.write_text(AVT.replace("meta-llama/Llama-2-7b-chat-hf", str(tmp_path / "text")))
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


def test_a_plan_adds_up(shallow):
    plan = make_plan(load_recipe(shallow, without_files=True), gpus=8)
    adapter, projectors = plan.parts["adapter"].parameters, plan.parts["projectors"].parameters
    frozen = plan.parameters - adapter - projectors
    in_copies = 4 * projectors + 2 * projectors  # float32 ones that train, and their originals
    assert plan.held.weights == pytest.approx(2 * frozen + in_copies + 4 * adapter, rel=1e-4)
    assert plan.held.optimizer == 2 * plan.held.gradients == 8 * plan.trained
    assert plan.samples[0].media == {"video": 320, "audio": 320} and plan.samples_per_step == 64
    assert plan.tokens_per_step == 64 * plan.heaviest.total
    shown = plan.activations
    assert shown.projectors + shown.decoder + shown.logits < shown.peak < plan.bytes_per_gpu - plan.held.total
    layer_input = 4 * plan.row_length * 4096 * 2
    assert shown.decoder == pytest.approx(6 * layer_input, rel=0.03)  # four, the last norm's in float32; and masks


def test_sharding_divides_what_is_held(tiny):
    whole = count_held(tiny, optimizer=None)
    ddp, zero2, fsdp = (count_held(tiny, optimizer=None, gpus=8, strategy=s) for s in ("ddp", "zero2", "fsdp"))
    assert ddp.weights == whole.weights and ddp.buckets == ddp.gradients == whole.gradients and whole.buckets == 0
    assert zero2.weights == whole.weights and zero2.optimizer == whole.optimizer // 8
    assert fsdp.weights == whole.weights // 8 and 0 < fsdp.gathered < whole.weights
    assert count_held(tiny, optimizer=None, gpus=1, strategy="fsdp") == whole


def test_deepspeed_keeps_its_whole_bucket_and_float32_copies(tiny):
    whole, settings = count_held(tiny, optimizer=None), {"optimizer": None, "gpus": 8}
    trained = whole.gradients // 4
    for strategy in ("zero2", "zero3"):
        full, half = (count_held(tiny, strategy=strategy, half=h, **settings) for h in (False, True))
        assert full.buckets == 5e8 * 4 and half.buckets == 5e8 * 2  # bytes of its 500 million elements
        assert full.gradients == trained * 4 // 8 and half.gradients == trained * 2 // 8
        assert full.optimizer == trained * 8 // 8 and half.optimizer == trained * (8 + 4) // 8
        assert half.weights == pytest.approx(full.weights / 2, rel=0.01) and half.gathered <= full.gathered


def test_weights_are_those_of_the_real_model(tiny):
    base = base_on("cpu", {"name": "tiny-avt", "dtype": "float32"})
    real = adapted(base, Adapter(method="moka", r=4).model_dump(), ["projectors"])
    assert count_held(tiny, optimizer=None) == count_held(real, optimizer=None)
    shapes = [{name: weight.shape for name, weight in model.named_parameters()} for model in (tiny, real)]
    assert shapes[0] == shapes[1]


def test_a_wrong_strategy_is_refused(small, capsys):
    assert call(["plan", str(small), "--strategy", "tp"]) == 2
    assert "`--strategy` is unknown: expected one of ddp, fsdp, zero2, zero3, got tp" in capsys.readouterr().err
    with pytest.raises(ValueError, match="expected one of ddp, fsdp, zero2, zero3 and 1 or more, got tp and 1"):
        make_plan(load_recipe(small, without_files=True), strategy="tp")


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
    assert plan.heaviest.total == 900 and "the longest in" in plan.heaviest.basis
    plan = make_plan(load_recipe(small, without_files=True), tokens=1000)
    assert plan.heaviest.text == 360 and plan.row_length == 1000
    with pytest.raises(ValueError, match="expected more than the 640 media tokens"):
        make_plan(load_recipe(small, without_files=True), tokens=600)


@pytest.mark.parametrize(
    ("name", "source", "media"),
    [
        ("llava-hf/llava-1.5-7b-hf", "llava_instruct", {"image": 576}),
        ("Qwen/Qwen2.5-VL-7B-Instruct", "a_okvqa", {"image": 392}),
        ("Qwen/Qwen2-Audio-7B-Instruct", "librispeech", {"audio": 313}),
        ("Qwen/Qwen2.5-Omni-7B", "music_avqa", {"video": 1470, "audio": 1500}),
    ],
)
def test_media_of_aligned_models_are_counted(tmp_path, name, source, media):
    recipe = load_recipe(aligned(tmp_path, name, source), without_files=True)
    base = base_on("meta", recipe.model.model_dump())
    (sample,) = sample_lengths(recipe.data, recipe.model, base)
    assert sample.media == media and sample.units.keys() == media.keys()


@pytest.fixture
def llava(tmp_path):
    """A recipe on LLaVA with two of its language model's layers."""
    config = published_config("llava-hf/llava-1.5-7b-hf")
    config.text_config.num_hidden_layers = 2
    config.save_pretrained(tmp_path / "llava")
    return aligned(tmp_path, str(tmp_path / "llava"), "llava_instruct")


def test_an_aligned_model_is_planned(llava):
    plan = make_plan(load_recipe(llava, without_files=True))
    assert not plan.towers_run and "are frozen" in as_text(plan)[-1] and "576 image (1 image)" in as_text(plan)[-3]
    assert plan.parts["adapter"].trained == plan.trained and plan.activations.decoder > 0
    assert plan.parts["vision"].parameters == 303_507_456 and plan.parts["projectors"].parameters == 20_979_712


def test_what_an_aligned_models_trained_parts_hold_is_said_to_be_missing(llava):
    plan = make_plan(load_recipe(llava, ["train.projectors=true"], without_files=True))
    assert "on top of the total: what the model's own projectors hold; they train" in as_text(plan)[-1]
    assert as_json(plan)["not_counted"] == as_text(plan)[-1] and "at least" in "".join(as_text(plan))


def test_encoders_that_train_keep_what_the_plan_counts(small):
    frozen = make_plan(load_recipe(small, without_files=True))
    plan = make_plan(load_recipe(small, ["train.towers=true"], without_files=True))
    assert "frozen encoders keep nothing" in "".join(as_text(frozen)) and as_json(frozen)["not_counted"] is None
    assert "and what encoders keep" in "".join(as_text(plan)) and as_json(plan)["not_counted"] is None
    assert plan.activations.projectors > frozen.activations.projectors


def test_explanations_are_longer_than_answers(small):
    recipe = load_recipe(small, ["data.train.reasoning=true"], without_files=True)
    base = base_on("meta", recipe.model.model_dump())
    (sample,) = sample_lengths(recipe.data, recipe.model, base)
    assert sample.text == 120 + 150


def test_the_source_that_holds_most_decides(small):
    sources = "[{name: llava_instruct, folder: x}, {name: video_llava, folder: x}]"
    small.write_text(small.read_text().replace("{name: music_avqa, folder: data/nowhere}", sources))
    overrides = ["data.media.video_frames=4", "training.batch_size=16"]
    plan = make_plan(load_recipe(small, overrides, without_files=True))
    image, video = plan.samples
    assert image.total == 212 > video.total == 208 and plan.heaviest is video  # four frames to encode instead of one
    assert plan.row_length == 208 and plan.tokens_per_step == 16 * 2 * 210


def test_packed_samples_are_kept_apart_by_a_mask(small):
    recipe = load_recipe(small, ["training.packing=true"], without_files=True)
    base = base_on("meta", recipe.model.model_dump())
    (sample,) = sample_lengths(recipe.data, recipe.model, base)
    batch = batch_of(base, recipe, sample)
    assert (batch.rows, batch.length, batch.masked) == (1, 4 * 760, True)
    assert "; 1 row of 3040 tokens" in as_text(make_plan(recipe))[-1]


def test_a_config_without_a_class_is_refused(tmp_path):
    LlamaConfig(vocab_size=500).save_pretrained(tmp_path / "text")
    recipe = load_recipe(aligned(tmp_path, str(tmp_path / "text"), "llava_instruct"), without_files=True)
    with pytest.raises(ValueError, match="`architectures` names no model class.*in the config of llama, got None"):
        make_plan(recipe)


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
