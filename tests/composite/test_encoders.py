"""Every encoder of the table: its shapes, its patch tokens, its layers."""

import pytest
import torch
from transformers import BeitConfig, BeitModel, SiglipConfig, SiglipModel

from moka_peft.composite.encoders import ENCODERS, build_encoder, encode, feature_width, load_encoder

from .conftest import AUDIO, LAYERS, PIXELS, VISION

PATCHES = {"ast": 8, "beats": 8, "hubert": 38, "wav2vec2": 38, "whisper": 5} | dict.fromkeys(VISION, 4)
EXTRA = {"clip": 1, "vit": 1, "dinov2": 1, "dinov2_with_registers": 4, "siglip": 0, "ast": 2}
MEDIA = {"ast": (32, 16), "beats": (35, 16), "hubert": (800,), "wav2vec2": (800,), "whisper": (8, 10)} | dict.fromkeys(
    VISION, (3, 16, 16)
)


def build(name: str):
    torch.manual_seed(0)
    return build_encoder({**VISION, **AUDIO}[name]()).eval()


def test_every_encoder_of_the_table_is_tested():
    assert {build_config().model_type for build_config in (*VISION.values(), *AUDIO.values())} == set(ENCODERS)


@pytest.mark.parametrize("name", [*VISION, *AUDIO])
@pytest.mark.parametrize("layers", [None, [1, -1]])
def test_features_are_the_patches_of_the_layers(name, layers):
    encoder, media = build(name), torch.randn(2, *MEDIA[name])
    patches = encode(encoder, media, layers, "patch")
    everything = encode(encoder, media, layers, "all")
    assert patches.shape == (2, PATCHES[name], feature_width(encoder.config, layers))
    assert everything.shape[1] == PATCHES[name] + EXTRA.get(name, 0)
    assert torch.equal(everything[:, EXTRA.get(name, 0) :], patches)


def test_chosen_layers_are_joined_in_order():
    encoder, media = build("clip"), torch.randn(1, 3, 16, 16)
    states = encoder(media, output_hidden_states=True).hidden_states
    assert torch.equal(encode(encoder, media, [2, 1], "all"), torch.cat([states[2], states[1]], dim=-1))


def test_of_a_two_tower_model_the_vision_tower_is_loaded(tmp_path):
    towers = {"text_config": {**LAYERS, "vocab_size": 9}, "vision_config": {**LAYERS, **PIXELS}}
    source = SiglipModel(SiglipConfig(**towers))
    source.save_pretrained(tmp_path)
    loaded, tower = load_encoder(str(tmp_path)), source.vision_model
    assert type(loaded).__name__ == "SiglipVisionModel"
    media = torch.randn(1, 3, 16, 16)
    assert torch.equal(encode(loaded, media, None, "patch"), tower.eval()(media).last_hidden_state)


def test_patches_of_an_unknown_encoder_are_refused():
    encoder = BeitModel(BeitConfig(hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=16))
    with pytest.raises(ValueError, match="`beit` is no encoder whose extra tokens are known"):
        encode(encoder, torch.zeros(1, 3, 224, 224), None, "patch")
    assert encode(encoder.eval(), torch.zeros(1, 3, 224, 224), None, "all").shape == (1, 197, 16)
