"""Bases that save memory: bitsandbytes 8-bit and 4-bit, torchao int8."""

import pytest
import torch
from peft import PeftModel
from torch import nn

from moka_peft.tuner import MokaLinear
from moka_peft.tuner.quantized import dense_weight

from ..families.quantizers import KINDS


@pytest.fixture(params=KINDS)
def quantize(request):
    """quantize(model) -> the model with the Linears of its layers quantized in place."""

    def apply(model):
        for layer in model.model.layers:
            for block in (layer.self_attn, layer.mlp):
                for name, linear in list(block.named_children()):
                    if isinstance(linear, nn.Linear):
                        setattr(block, name, KINDS[request.param](linear))
        return model.eval()

    return apply


@pytest.fixture
def ids(chat):
    return torch.cat([chat("vvxyz", "pp"), chat("xavwq", "mm")])


@pytest.fixture
def lm(tiny_lm):
    """Widths that every kind of quantization takes."""
    return lambda: tiny_lm(hidden_size=64, intermediate_size=128)


def test_the_adapter_adds_the_same_as_on_the_rounded_weights(adapted, lm, quantize, ids):
    model = adapted(base=quantize(lm()))
    twin = adapted(base=dense_twin(model, lm()))
    with model.disable_adapter(), twin.disable_adapter():
        base, rounding = logits(twin, ids), distance(logits(model, ids), logits(twin, ids))
    error = distance(logits(model, ids), logits(twin, ids))
    assert error <= 4 * rounding + 1e-4 and distance(logits(twin, ids), base) > 10 * error


def logits(model, ids):
    """Without gradients: bitsandbytes takes another kernel where an input needs one."""
    with torch.no_grad():
        return model(ids).logits


def first_projection(model, ids):
    """What the first adapted layer makes of the embeddings."""
    seen = []
    layer = model.get_base_model().model.layers[0].self_attn.q_proj
    handle = layer.register_forward_hook(lambda *call: seen.append(call[2]))
    logits(model, ids)
    handle.remove()
    return seen[0]


def distance(a, b):
    return float((a - b).norm())


def dense_twin(model, plain):
    """A plain base that holds the rounded weights of the adapted `model`'s."""
    for name, layer in model.get_base_model().named_modules():
        if isinstance(layer, MokaLinear):
            plain.get_submodule(name).weight.data = dense_weight(layer.base_layer).float()
    return plain


def test_every_adapter_weight_trains(adapted, lm, quantize, ids):
    model = adapted(base=quantize(lm())).train()
    model(ids).logits.square().mean().backward()
    gradients = {n: p.grad for n, p in model.named_parameters() if "moka_" in n}
    assert gradients and all(g is not None and g.abs().max() > 0 for g in gradients.values())
    assert all(p.grad is None for n, p in model.named_parameters() if "moka_" not in n)


def test_disabled_is_the_base_bit_for_bit(adapted, lm, quantize, ids):
    base = quantize(lm())
    expected = logits(base, ids)
    model = adapted(base=base)
    assert not torch.allclose(logits(model, ids), expected)
    with model.disable_adapter():
        assert torch.equal(logits(model, ids), expected)


def test_saved_loaded_and_generating(adapted, lm, quantize, ids, tmp_path):
    model = adapted(base=quantize(lm()))
    model.save_pretrained(tmp_path)
    loaded = PeftModel.from_pretrained(quantize(lm()), tmp_path)
    assert torch.equal(logits(loaded, ids), logits(model, ids))
    options = {"max_new_tokens": 4, "do_sample": False}
    assert torch.equal(model.generate(ids, **options), model.generate(ids, use_cache=False, **options))


def test_merging_rounds_and_is_asked_for(adapted, lm, quantize, ids):
    model = adapted(base=quantize(lm()))
    unmerged = logits(model, ids)
    with pytest.raises(ValueError, match=r"`merge_adapter`: the base of .* is quantized \(\w+\).*safe=False"):
        model.merge_adapter()
    layer = model.get_base_model().model.layers[0].mlp.up_proj
    before = dense_weight(layer.base_layer)
    model.merge_adapter(safe=False)
    after = dense_weight(layer.base_layer)
    wanted = before + layer.text_update("default").to(before.dtype)
    assert (after - wanted).norm() < 0.15 * (wanted - before).norm()
    twin = adapted(base=dense_twin(model, lm()))
    for adapted_layer in (m for m in twin.modules() if isinstance(m, MokaLinear)):
        adapted_layer.merged_adapters = ["default"]
    got, expected = (first_projection(m, ids) for m in (model, twin))
    assert distance(got, expected) < 0.01 * distance(expected, 0)  # bitsandbytes' own kernels: 0.006 of the result
    model.unmerge_adapter()
    assert torch.equal(dense_weight(layer.base_layer), before)
    assert torch.equal(logits(model, ids), unmerged)


def test_merging_after_a_forward_equals_merging_before_one(lm, quantize, ids):
    base = quantize(lm())
    layer = base.model.layers[0].mlp.up_proj
    before = dense_weight(layer)
    logits(base, ids)  # bitsandbytes packs 4-bit weights anew here, on processors that multiply bfloat16
    bfloat16 = 2**-8  # scale, code and product are each rounded, or cut off, to that
    torch.testing.assert_close(dense_weight(layer), before, rtol=3 * bfloat16, atol=0)


def test_eight_bit_floats_are_not_merged(adapted):
    model = adapted(target_modules=["q_proj"])
    base = model.get_base_model().model.layers[0].self_attn.q_proj.base_layer
    base.weight.data = base.weight.data.to(torch.float8_e4m3fn)
    for options, message in ({}, "is quantized"), ({"safe": False}, "expected one of Params4bit"):
        with pytest.raises(ValueError, match=message):
            model.merge_adapter(**options)


def test_unknown_quantization_is_not_merged(adapted):
    model = adapted()

    class PackedLinear(nn.Linear):
        pass

    model.get_base_model().model.layers[0].self_attn.q_proj.base_layer.__class__ = PackedLinear
    with pytest.raises(
        ValueError, match=r"a PackedLinear with a Tensor cannot be merged into: expected one of Params4bit"
    ):
        model.merge_adapter(safe=False)
