"""BEATs equals its description: sizes, values, gradients, number formats."""

import pytest
import torch

from moka_peft.composite.beats import BeatsConfig, BeatsModel, load_beats
from moka_peft.composite.beats.attention import distance_buckets

from .beats_reference import (
    ITER3_PLUS,
    TINY,
    published_checkpoint,
    published_shapes,
    reference_bucket,
    reference_states,
)


@pytest.fixture
def checkpoint():
    return published_checkpoint()


@pytest.fixture
def beats(tmp_path, checkpoint):
    torch.save(checkpoint, tmp_path / "beats.pt")
    return load_beats(tmp_path / "beats.pt")


def spectrograms(count: int = 1, frames: int = 38) -> torch.Tensor:
    return torch.randn(count, frames, 128, generator=torch.Generator().manual_seed(1))


def test_iter3_plus_has_the_published_number_of_weights():
    with torch.device("meta"):
        model = BeatsModel(BeatsConfig())
    width, inner, embed, heads, layers = 768, 3072, 512, 12, 12
    patches = 16 * 16 * embed + 2 * embed + (embed + 1) * width
    position = 128 * width * (width // 16) + 128 + width + 2 * width
    attention = 4 * (width + 1) * width + (width // heads + 1) * 8 + heads
    layer = attention + (width + 1) * inner + (inner + 1) * width + 4 * width
    expected = patches + position + layers * layer + 320 * heads
    assert sum(weight.numel() for weight in model.parameters()) == expected == 90_311_792
    assert expected + (width + 1) * 527 == 90_717_055  # with the AudioSet classifier that fine-tuned ones have


def test_defaults_are_those_of_iter3_plus():
    config = BeatsConfig()
    assert {name: getattr(config, name) for name in ITER3_PLUS if name != "finetuned_model"} == {
        name: value for name, value in ITER3_PLUS.items() if name != "finetuned_model"
    }
    assert (config.hidden_size, config.num_hidden_layers) == (768, 12)


def test_states_equal_the_loops(beats, checkpoint):
    features = spectrograms(2)
    hidden = beats.double()(features.double(), output_hidden_states=True).hidden_states
    assert len(hidden) == 13
    for index, one in enumerate(features.double().numpy()):
        for ours, theirs in zip(hidden, reference_states(checkpoint, one), strict=True):
            torch.testing.assert_close(ours[index], torch.from_numpy(theirs), rtol=0, atol=1e-12)


def test_buckets_equal_the_formula_in_float64():
    distances = torch.arange(-5000, 5001)
    ours = distance_buckets(distances, 320, 800).tolist()
    assert ours == [reference_bucket(distance, 320, 800) for distance in distances.tolist()]


def test_last_state_is_the_last_layers_and_frames_past_the_last_patch_do_not_count(beats):
    features = spectrograms(frames=47)
    output = beats(features, output_hidden_states=True)
    assert output.last_hidden_state.shape == (1, 2 * 8, 8)
    assert torch.equal(output.last_hidden_state, output.hidden_states[-1])
    assert torch.equal(beats(features[:, :32]).last_hidden_state, output.last_hidden_state)
    assert beats(features).hidden_states is None


def test_segments_together_equal_each_alone(beats):
    beats, features = beats.double(), spectrograms(3).double()
    alone = torch.cat([beats(one[None]).last_hidden_state for one in features])
    torch.testing.assert_close(beats(features).last_hidden_state, alone, rtol=0, atol=1e-12)


@pytest.mark.parametrize(("dtype", "bits"), [(torch.float32, 24), (torch.bfloat16, 8)])
def test_other_number_formats_are_as_near_as_their_mantissa_allows(beats, dtype, bits):
    features = spectrograms(2)
    exact = beats.double()(features.double()).last_hidden_state
    rounded = beats.to(dtype)(features.to(dtype)).last_hidden_state
    assert rounded.dtype == dtype
    assert (rounded.double() - exact).norm() / exact.norm() < 12 * 2.0**-bits  # a rounding per layer


def test_every_weight_gets_a_gradient_even_where_layers_are_skipped(beats):
    beats.encoder.layerdrop = 1.0
    beats.train()(spectrograms()).last_hidden_state.square().sum().backward()
    assert all(weight.grad is not None for weight in beats.parameters())
    assert not any(weight.grad.any() for weight in beats.encoder.layers.parameters())
    beats.zero_grad()
    beats.encoder.layerdrop = 0.0
    beats(spectrograms()).last_hidden_state.square().sum().backward()
    assert all(weight.grad.any() for name, weight in beats.named_parameters() if "k_proj.bias" not in name)


def test_the_gradient_shrinks_at_every_layer(beats):
    beats, features = beats.double().train(), spectrograms().double()
    beats.encoder.layerdrop = 0.0
    weights = [beats.layer_norm.weight, beats.encoder.layers[0].fc1.weight, beats.encoder.layers[-1].fc1.weight]
    shrunk = torch.autograd.grad(beats(features).last_hidden_state.square().sum(), weights)
    beats.encoder.gradient_decay = 1.0
    full = torch.autograd.grad(beats(features).last_hidden_state.square().sum(), weights)
    for ours, theirs, passed in zip(shrunk, full, (12, 11, 0), strict=True):
        torch.testing.assert_close(ours, theirs * 0.6**passed)


def test_a_fresh_model_passes_its_position_convolution_on():
    torch.manual_seed(0)
    model = BeatsModel(BeatsConfig(encoder_layers=1, encoder_embed_dim=96, encoder_ffn_embed_dim=96))
    convolution = model.encoder.pos_conv[0]
    assert torch.equal(convolution.gain, convolution.tap_norms())
    assert convolution.direction.std().item() == pytest.approx((4 / (128 * 96)) ** 0.5, rel=0.05)
    assert model.encoder.layers[0].self_attn.grep_a.eq(1).all()


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"layer_norm_first": True}, "`layer_norm_first` is not supported: expected False"),
        ({"activation_fn": "glu"}, "`activation_fn` is not supported: expected 'gelu'"),
        ({"encoder_attention_heads": 7}, "`encoder_attention_heads` does not fit: expected a divisor"),
    ],
)
def test_unpublished_variants_are_refused(settings, message):
    with pytest.raises(ValueError, match=message):
        BeatsConfig(**settings)


@pytest.mark.parametrize("shape", [(1, 15, 128), (1, 32, 64), (32, 128)])
def test_features_of_another_shape_are_refused(beats, shape):
    with pytest.raises(ValueError, match="`input_features` has the wrong shape: expected"):
        beats(torch.zeros(shape))


@pytest.mark.parametrize("attention", ["sdpa", "eager", "flex_attention"])
def test_it_takes_the_attention_of_its_composite(attention):
    cfg = {name: value for name, value in TINY.items() if name != "finetuned_model"}
    model = BeatsModel._from_config(BeatsConfig(**cfg), attn_implementation=attention)
    assert len(published_shapes(TINY)) == len(model.state_dict()) + 11
