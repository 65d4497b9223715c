"""BEATs' published checkpoints, and folders saved from them."""

import re

import pytest
import torch
from transformers import AutoFeatureExtractor, AutoModel, AutoModelForImageTextToText, AutoProcessor, LlamaForCausalLM

from moka_peft.composite import build_composite
from moka_peft.composite.beats import BeatsConfig, BeatsFeatureExtractor, BeatsModel, load_beats, save_beats
from moka_peft.composite.encoders import encode, load_encoder, load_feature_extractor
from moka_peft.composite.tiny_avt import tiny_avt_tokenizer

from .beats_reference import ITER3_PLUS, TINY, published_checkpoint, published_shapes
from .conftest import text_config

BIAS = "encoder.layers.{}.self_attn.relative_attention_bias.weight"
SETTINGS = {name: value for name, value in TINY.items() if name != "finetuned_model"}


@pytest.fixture
def path(tmp_path):
    return tmp_path / "BEATs_tiny.pt"


def test_every_published_weight_arrives_and_goes_back(path, tmp_path):
    published = published_checkpoint()
    torch.save(published, path)
    model = load_beats(path)
    assert not model.training and model.config.to_dict().items() >= SETTINGS.items()
    save_beats(model, tmp_path / "again.pt")
    again = torch.load(tmp_path / "again.pt", weights_only=True)
    assert again["cfg"].items() >= SETTINGS.items()
    assert again["model"].keys() == published["model"].keys()
    assert all(torch.equal(again["model"][name], weight) for name, weight in published["model"].items())


def test_iter3_plus_has_the_published_keys_and_shapes(path):
    with torch.device("meta"):
        save_beats(BeatsModel(BeatsConfig()), path)
    ours = torch.load(path, weights_only=True)["model"]
    assert {name: tuple(weight.shape) for name, weight in ours.items()} == published_shapes(ITER3_PLUS)


def test_a_fine_tuned_checkpoint_leaves_its_classifier_behind(path):
    published = published_checkpoint()
    torch.save(published, path)
    plain = load_beats(path).state_dict()
    published["cfg"] |= {"finetuned_model": True, "predictor_class": 527, "predictor_dropout": 0.0}
    published["model"] |= {"predictor.weight": torch.ones(527, 8), "predictor.bias": torch.ones(527)}
    torch.save({**published, "label_dict": {0: "/m/09x0r"}}, path)
    tuned = load_beats(path).state_dict()
    assert plain.keys() == tuned.keys()
    assert all(torch.equal(plain[name], tuned[name]) for name in plain)


def test_what_a_cfg_leaves_out_has_the_published_codes_default(path):
    published = published_checkpoint()
    for name in ("max_distance", "deep_norm", "encoder_layerdrop"):
        del published["cfg"][name]
    torch.save(published, path)
    config = load_beats(path).config
    assert (config.max_distance, config.deep_norm, config.encoder_layerdrop) == (1280, False, 0.0)
    del published["cfg"]["gru_rel_pos"]
    torch.save(published, path)
    with pytest.raises(ValueError, match="`gru_rel_pos` is not supported: expected True"):
        load_beats(path)


def test_a_file_of_torchs_old_format_and_half_precision_loads(path):
    published = published_checkpoint()
    torch.save(published, path, _use_new_zipfile_serialization=False)
    weight = load_beats(path).layer_norm.weight
    assert torch.equal(weight, published["model"]["layer_norm.weight"])
    for dtype in (torch.bfloat16, "bfloat16"):
        model = load_encoder(str(path), dtype=dtype)
        assert model.dtype == model.config.dtype == torch.bfloat16
        assert torch.equal(model.layer_norm.weight, weight.bfloat16())


def drop_two(published):
    del published["model"]["layer_norm.bias"], published["model"]["encoder.layers.3.fc1.bias"]


def add_one(published):
    published["model"]["quantize.embedding.weight"] = torch.zeros(1)


def widen(published):
    published["model"]["layer_norm.bias"] = torch.zeros(7)


def untie(published):
    published["model"][BIAS.format(5)] = torch.zeros(12, 2)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (drop_two, "cfg describes. missing: encoder.layers.3.fc1.bias, layer_norm.bias. "),
        (add_one, "cfg describes. unexpected: quantize.embedding.weight. "),
        (widen, "cfg describes. of another shape: layer_norm.bias [7] instead of [6]. "),
        (untie, f"`{BIAS.format(5)}` is not a copy of layer 0's"),
        (lambda published: published.pop("cfg"), "has no `cfg`: expected a dict of `cfg` and `model`, got ['model']"),
        (lambda published: published.pop("model"), "has no `model`: expected a dict of `cfg` and `model`"),
    ],
)
def test_another_checkpoint_is_refused(path, change, message):
    published = published_checkpoint()
    change(published)
    torch.save(published, path)
    with pytest.raises(ValueError, match=re.escape(message)):
        load_beats(path)


def test_a_file_that_is_none_or_holds_more_than_weights_is_refused(path):
    with pytest.raises(FileNotFoundError, match="is no file: expected a BEATs checkpoint .*microsoft/unilm"):
        load_encoder(str(path))
    torch.save({"cfg": BeatsConfig(), "model": {}}, path)
    with pytest.raises(ValueError, match="is no checkpoint that holds only weights"):
        load_beats(path)
    path.write_bytes(b"<html>not found</html>")
    with pytest.raises(ValueError, match="is no checkpoint that holds only weights"):
        load_beats(path)


def test_a_folder_gives_the_same_states(path, tmp_path):
    torch.save(published_checkpoint(), path)
    model, folder = load_beats(path), tmp_path / "folder"
    model.save_pretrained(folder)
    load_feature_extractor(str(path)).save_pretrained(folder)
    wave = 0.1 * torch.randn(2, 8000)
    features = load_feature_extractor(str(folder))(wave, return_tensors="pt")["input_features"]
    loaded = load_encoder(str(folder))
    assert isinstance(loaded, BeatsModel) and isinstance(AutoModel.from_pretrained(folder), BeatsModel)
    assert torch.equal(encode(loaded, features, None, "patch"), model(features).last_hidden_state)
    assert torch.equal(encode(loaded, features, [3, 12], "all")[..., 8:], model(features).last_hidden_state)
    assert AutoFeatureExtractor.from_pretrained(folder).to_dict() == BeatsFeatureExtractor().to_dict()


def test_a_whole_composite_comes_back(path, tmp_path):
    torch.save(published_checkpoint(), path)
    tokenizer = tiny_avt_tokenizer()
    text = LlamaForCausalLM(text_config(vocab_size=len(tokenizer)))
    model, processor = build_composite(text, audio=str(path), tokenizer=tokenizer, segment_seconds=0.5)
    assert (processor.tokens_per_segment, processor.segment_seconds) == (3 * 8, 0.5)  # 48 frames of 128 bins
    model.save_pretrained(tmp_path / "all")
    processor.save_pretrained(tmp_path / "all")
    loaded = AutoModelForImageTextToText.from_pretrained(tmp_path / "all")
    batches = [
        each(text="<audio>many", audios=[torch.linspace(-1, 1, 12_000).numpy()], return_tensors="pt")
        for each in (processor, AutoProcessor.from_pretrained(tmp_path / "all"))
    ]
    features = batches[0]["input_features"]
    assert torch.equal(features, batches[1]["input_features"]) and features.shape == (2, 48, 128)
    assert torch.equal(*(each.embed_media("audio", features) for each in (model, loaded)))
    assert loaded(**batches[1]).logits.isfinite().all()
