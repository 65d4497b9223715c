"""Lambda without retraining: the same as an adapter of that lambda with the same weights."""

import json

import pytest
import torch

from moka_peft.analysis.adapted_layers import adapted_layers
from moka_peft.analysis.cross_scales import cross_scale, draw_scales, measure_scales, trained_scale

from .adapters import adapt
from .answering import answering

ROW = torch.tensor([[1, 2, 3, 50, 50, 20, 60, 21, 4, 22, 23]])  # two images, a word, a sound, a word, an answer


def logits(model):
    with torch.no_grad():
        return model(ROW).logits


METHODS = [("moka", "cross_attention"), ("moka", "mean"), ("moka", "text_query"), ("moka_shared_a", "cross_attention")]


@pytest.mark.parametrize("method, interaction", METHODS)
@pytest.mark.parametrize("value", [0, 0.25, (0.5, 1.5)])
def test_equals_an_adapter_of_that_lambda(tiny_lm, spec, method, interaction, value):
    model = adapt(tiny_lm(), method, spec, interaction=interaction, cross_scale=1.0)
    other = adapt(tiny_lm(), method, spec, interaction=interaction, cross_scale=value)
    plain = logits(model)
    with cross_scale(model, value):
        assert torch.equal(logits(model), logits(other))
        assert trained_scale(other) == trained_scale(model)
    assert torch.equal(logits(model), plain) and not torch.equal(plain, logits(other))


def test_zero_equals_no_interaction(tiny_lm, spec):
    model, other = adapt(tiny_lm(), "moka", spec), adapt(tiny_lm(), "moka", spec, interaction="none")
    with cross_scale(model, 0.0):
        torch.testing.assert_close(logits(model), logits(other), rtol=1e-12, atol=1e-12)


def test_a_merged_text_path(tiny_lm, spec):
    model = adapt(tiny_lm(), "moka", spec)
    with cross_scale(model, 2.0):
        expected = logits(model)
        model.merge_adapter()
        torch.testing.assert_close(logits(model), expected, rtol=1e-9, atol=1e-9)


def test_put_back_even_on_errors(tiny_lm, spec):
    model = adapt(tiny_lm(), "moka", spec, cross_scale=(0.5, 1.0))
    before = [layer.options["default"] for layer in adapted_layers(model).values()]
    with pytest.raises(KeyError), cross_scale(model, 0.0):
        raise KeyError
    with pytest.raises(ValueError, match="`cross_scale`: expected one number or 2, one per media modality, got 3"):
        cross_scale(model, (1.0, 1.0, 1.0)).__enter__()
    assert all(a is b.options["default"] for a, b in zip(before, adapted_layers(model).values(), strict=True))
    assert trained_scale(model) == (0.5, 1.0)


@pytest.mark.parametrize(
    "method, settings",
    [("lora", {}), ("multiple_lora", {}), ("moka", {"interaction": "none"}), ("moka", {"modalities": ("text",)})],
)
def test_adapters_without_attention_are_refused(tiny_lm, spec, method, settings):
    model = adapt(tiny_lm(), method, spec, **settings)
    with pytest.raises(ValueError, match="no cross-attention"):
        cross_scale(model, 1.0).__enter__()
    with pytest.raises(ValueError, match="no cross-attention"):
        trained_scale(model)


def test_measured(tmp_path):
    model, processor, samples = answering("moka", size=4)
    result = measure_scales(model, processor, samples, scales=(2, 0.0, (0.0, 1.0)), batch_size=4, max_new_tokens=2)
    told = [(row["cross_scale"], row["trained"]) for row in result["rows"]]
    assert told == [(0.0, False), ([0.0, 1.0], False), (1.0, True), (2.0, False)]
    assert result["rows"][2]["agreement"] == 1 and len({row["loss"] for row in result["rows"]}) == 4
    assert result["trained"] == 1.0 and result["samples"] == 4
    result = json.loads(json.dumps(result))
    draw_scales(result, tmp_path / "both.png")
    draw_scales({**result, "rows": [row for row in result["rows"] if row["cross_scale"] != [0, 1]]}, tmp_path / "a.png")
    assert min((tmp_path / name).stat().st_size for name in ("both.png", "a.png")) > 10_000
