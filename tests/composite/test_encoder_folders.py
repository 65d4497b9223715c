"""Encoders from saved folders: their features are those of the transformers model called directly."""

import numpy as np
import pytest
import torch
from transformers import (
    ASTFeatureExtractor,
    ASTForAudioClassification,
    CLIPConfig,
    CLIPModel,
    HubertConfig,
    HubertForCTC,
    SiglipConfig,
    SiglipModel,
    Wav2Vec2FeatureExtractor,
    Wav2Vec2ForCTC,
    WhisperConfig,
    WhisperFeatureExtractor,
    WhisperForConditionalGeneration,
)

from moka_peft.composite.encoders import encode, load_encoder, load_feature_extractor

from .conftest import AUDIO, LAYERS, NO_WORDS, PIXELS, WAVES

WORDS = {**LAYERS, "vocab_size": 9, "eos_token_id": 2}
DEEP = {**LAYERS, **PIXELS, "num_hidden_layers": 24}
LARGE = {"feat_extract_norm": "layer", "do_stable_layer_norm": True, "vocab_size": 4}
SEQ2SEQ = {"decoder_layers": 1, "decoder_attention_heads": 2, "decoder_ffn_dim": 24}
WINDOW = 100
"""Frames that the tiny Whisper was made for: 1 s."""


def whisper() -> WhisperForConditionalGeneration:
    encoder = {"d_model": 16, "encoder_layers": 2, "encoder_attention_heads": 2, "encoder_ffn_dim": 24}
    config = WhisperConfig(**NO_WORDS, **encoder, **SEQ2SEQ, num_mel_bins=8, max_source_positions=WINDOW // 2)
    return WhisperForConditionalGeneration(config)


MODELS = {
    "ast": lambda: ASTForAudioClassification(AUDIO["ast"]()),
    "clip": lambda: CLIPModel(CLIPConfig(text_config=WORDS, vision_config=DEEP, projection_dim=8)),
    "hubert": lambda: HubertForCTC(HubertConfig(**LAYERS, **WAVES, **LARGE)),
    "siglip": lambda: SiglipModel(SiglipConfig(text_config=WORDS, vision_config=DEEP)),
    "wav2vec2": lambda: Wav2Vec2ForCTC(type(AUDIO["wav2vec2"]())(**LAYERS, **WAVES, **LARGE)),
    "whisper": whisper,
}
"""What lies in the hub's folders: whole models with a head, of which the encoder is a part."""

ENCODER_OF = {
    "ast": lambda model: model.audio_spectrogram_transformer,
    "clip": lambda model: model.vision_model,
    "hubert": lambda model: model.hubert,
    "siglip": lambda model: model.vision_model,
    "wav2vec2": lambda model: model.wav2vec2,
    "whisper": lambda model: model.model.encoder,
}
MEDIA = {
    "ast": (32, 16),
    "clip": (3, 16, 16),
    "hubert": (800,),
    "siglip": (3, 16, 16),
    "wav2vec2": (800,),
    "whisper": (8, WINDOW),
}
CASES = [(name, layers) for name in MODELS for layers in (None, [1, 2])]
CASES += [(name, layers) for name in ("clip", "siglip") for layers in ([23], [14, 23])]


def check(ours: torch.Tensor, theirs: torch.Tensor) -> None:
    torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-12)


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    """folders(name) -> the transformers model's own encoder in float64 and the folder where the whole model lies."""
    saved = {}

    def save(name: str):
        if name not in saved:
            torch.manual_seed(0)
            model, folder = MODELS[name]().double().eval(), tmp_path_factory.mktemp(name)
            model.save_pretrained(folder)
            saved[name] = ENCODER_OF[name](model), str(folder)
        return saved[name]

    return save


@pytest.mark.parametrize(("name", "layers"), CASES)
@pytest.mark.parametrize("select", ["patch", "all"])
def test_features_are_those_of_the_model_itself(folders, name, layers, select):
    source, folder = folders(name)
    media = torch.randn(3, *MEDIA[name])
    output = source(media.double(), output_hidden_states=True)
    states = [output.last_hidden_state] if layers is None else [output.hidden_states[layer] for layer in layers]
    extra = {"ast": 2, "clip": 1}.get(name, 0) if select == "patch" else 0
    expected = torch.cat(states, dim=-1)[:, extra:]
    check(encode(load_encoder(folder), media, layers, select), expected)


def test_of_a_whole_model_nothing_but_the_encoder_is_loaded(folders):
    for name in MODELS:
        source, folder = folders(name)
        ours, theirs = load_encoder(folder).state_dict(), source.state_dict()
        ours = {name.removeprefix("vision_model."): weight for name, weight in ours.items()}
        assert ours.keys() == theirs.keys()
        assert all(torch.equal(ours[name], theirs[name]) for name in ours)


def test_whisper_reads_a_shorter_segment_as_if_silence_followed(folders, tmp_path):
    source, folder = folders("whisper")
    WhisperFeatureExtractor(feature_size=8, chunk_length=1).save_pretrained(tmp_path)
    extract, encoder = load_feature_extractor(str(tmp_path)), load_encoder(folder)
    loud, quiet = np.zeros((2, 16_000), dtype=np.float32)
    loud[:6000] = np.random.default_rng(0).normal(0, 0.1, 6000)  # silent where the short segment ends
    options = {"sampling_rate": 16_000, "return_tensors": "pt", "padding": "max_length"}
    whole = extract([loud, quiet], **options)["input_features"]
    short = extract([loud[:8000], quiet[:8000]], max_length=8000, **options)["input_features"]
    assert whole.shape[-1] == WINDOW and short.shape[-1] == 50
    output = source(whole.double(), output_hidden_states=True)
    for layers, states in ((None, output.last_hidden_state), ([1], output.hidden_states[1])):
        features = encode(encoder, short, layers, "all")
        torch.testing.assert_close(features.float(), states[:, :25].float())  # the spectrograms are in float32
    assert encode(encoder, short[..., :49], None, "patch").shape[1] == 25


def test_whisper_refuses_a_segment_longer_than_its_window(folders):
    with pytest.raises(ValueError, match="too long for Whisper: expected at most 100 frames of 10 ms, got 102"):
        encode(load_encoder(folders("whisper")[1]), torch.zeros(1, 8, 102), None, "patch")


@pytest.mark.parametrize("name", ["hubert", "wav2vec2"])
def test_waveform_encoders_read_any_length_but_none_too_short(folders, name, tmp_path):
    source, folder = folders(name)
    Wav2Vec2FeatureExtractor().save_pretrained(tmp_path)
    extract, encoder = load_feature_extractor(str(tmp_path)), load_encoder(folder)
    for samples in (45, 333, 3000):
        wave = np.random.default_rng(0).normal(0, 0.1, samples).astype(np.float32)
        values = extract(wave, sampling_rate=16_000, return_tensors="pt")["input_values"]
        check(encode(encoder, values, None, "patch"), source(values.double()).last_hidden_state)
    with pytest.raises(ValueError, match=f"too short for {name}: expected at least 45 samples, got 44"):
        encode(encoder, torch.zeros(1, 44), None, "patch")


def test_a_spectrogram_transformer_pads_segments_to_its_own_length(folders, tmp_path):
    ASTFeatureExtractor(num_mel_bins=16, max_length=32).save_pretrained(tmp_path)
    extract, (source, folder) = load_feature_extractor(str(tmp_path)), folders("ast")
    values = extract(np.ones(2000), sampling_rate=16_000, return_tensors="pt", padding="max_length", max_length=2000)
    assert values["input_values"].shape == (1, 32, 16)
    features = encode(load_encoder(folder), values["input_values"], None, "patch")
    check(features, source(values["input_values"].double()).last_hidden_state[:, 2:])
