"""Parts that are given to a composite keep every weight, wherever these came from."""

from pathlib import Path

import pytest
import torch
from transformers import LlamaForCausalLM, WhisperModel

from moka_peft.composite import CompositeForConditionalGeneration
from moka_peft.composite.beats import BeatsConfig, BeatsModel, load_beats, save_beats

from .conftest import AUDIO, composite_config, text_config

TINY_BEATS = dict(encoder_layers=2, encoder_embed_dim=16, encoder_ffn_embed_dim=24, encoder_attention_heads=2)
TINY_BEATS |= dict(embed_dim=8, conv_pos=8, conv_pos_groups=2)


def own_weights(model):
    return {name: weight.clone() for name, weight in model.state_dict().items()}


def joined(text_model, audio_encoder):
    config = composite_config(None, audio_encoder.config, audio_feature_select="all")
    return CompositeForConditionalGeneration(config, {"text_model": text_model, "audio_encoder": audio_encoder})


@pytest.mark.parametrize("source", ["checkpoint", "object"])
def test_a_composite_leaves_given_parts_as_they_are(source: str, tmp_path: Path):
    encoder = BeatsModel(BeatsConfig(**TINY_BEATS))
    with torch.no_grad():
        for weight in encoder.parameters():
            weight.add_(1.0)
    if source == "checkpoint":
        save_beats(encoder, tmp_path / "beats.pt")
        encoder = load_beats(tmp_path / "beats.pt")
    text_model = LlamaForCausalLM(text_config())
    before = own_weights(text_model), own_weights(encoder)
    composite = joined(text_model, encoder)
    for part, weights in zip((composite.text_model, composite.audio_encoder), before, strict=True):
        assert all(torch.equal(weight, weights[name]) for name, weight in part.state_dict().items())


def test_a_loaded_encoder_stays_too(tmp_path: Path):
    WhisperModel(AUDIO["whisper"]()).save_pretrained(tmp_path)
    encoder = WhisperModel.from_pretrained(tmp_path).get_encoder()
    before = own_weights(encoder)
    composite = joined(LlamaForCausalLM(text_config()), encoder)
    assert all(torch.equal(weight, before[name]) for name, weight in composite.audio_encoder.state_dict().items())
    assert composite.audio_projector[-1].weight.std() < 0.1
