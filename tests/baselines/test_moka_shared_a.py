"""MokA with one A: MokA whose A's are equal, in its results, its one gradient and its merging."""

import pytest
import torch
from peft import PeftModel, get_peft_model

from moka_peft import MokaConfig, Routing, use_routing
from moka_peft.baselines.moka_shared_a import MokaSharedAConfig

NAMES = ("text", "visual", "audio")


def adapted(config, dtype=torch.float64, **settings):
    torch.manual_seed(0)
    base = torch.nn.Sequential(torch.nn.Linear(6, 10)).to(dtype)
    names = dict(target_modules=["0"], modalities=NAMES, init_lora_weights=False)
    return get_peft_model(base, config(r=2, lora_alpha=6, **names, **settings))


@pytest.fixture
def routing():
    modality = torch.tensor([[0, 1, 2, 1, 0, 0], [-1, 0, 2, 0, 0, 1]])
    turn = torch.tensor([[0, 1, 1, 1, 1, 1], [0, 0, 1, 1, 1, 0]])
    return Routing(modality, turn, NAMES)


@pytest.fixture
def x():
    return torch.randn(2, 6, 6, dtype=torch.float64, generator=torch.Generator().manual_seed(1))


def reference(layer, x, routing, scale):
    A, B = layer.moka_A["default"].weight, layer.moka_B["default"].weight
    y, z = layer.base_layer(x), x @ A.T
    deltas = torch.zeros_like(y)
    for b, t in (routing.modality >= 0).nonzero().tolist():
        u, turn = z[b, t], routing.turn[b, t]
        keys = z[b][(routing.modality[b] == 0) & (routing.turn[b] == turn)]
        if routing.modality[b, t] > 0 and turn > 0:
            u = u + scale * torch.softmax(keys @ z[b, t] / 2**0.5, 0) @ keys
        deltas[b, t] = B @ u * 6 / 2
    return y + deltas


@pytest.mark.parametrize("impl", ["eager", "reference"])
def test_formula_and_the_gradient_of_its_one_A(routing, x, impl):
    model, sent = adapted(MokaSharedAConfig, cross_scale=0.7, impl=impl), torch.randn(2, 6, 10, dtype=torch.float64)
    layer, x = model.base_model.model[0], x.requires_grad_()
    weights = [x, *(p for p in model.parameters() if p.requires_grad)]
    with use_routing(model, routing):
        y = model(x)
    expected = reference(layer, x, routing, 0.7)
    torch.testing.assert_close(y, expected, rtol=1e-12, atol=1e-12)
    got = torch.autograd.grad(y, weights, sent)
    assert len(got) == 3
    for gradient, wanted in zip(got, torch.autograd.grad(expected, weights, sent), strict=True):
        torch.testing.assert_close(gradient, wanted, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("interaction", ["cross_attention", "text_query", "mean", "none"])
def test_is_moka_with_equal_matrices(routing, x, interaction):
    """And its gradient is the sum of theirs."""
    shared = adapted(MokaSharedAConfig, interaction=interaction)
    moka = adapted(MokaConfig, interaction=interaction)
    layer, apart = shared.base_model.model[0], moka.base_model.model[0]
    copies = [getattr(apart, f"moka_A_{name}")["default"].weight for name in NAMES]
    for copy in copies:
        copy.data.copy_(layer.moka_A["default"].weight)
    apart.moka_B["default"].weight.data.copy_(layer.moka_B["default"].weight)
    with use_routing(shared, routing), use_routing(moka, routing):
        y, expected = shared(x), moka(x)
    assert torch.equal(y, expected)
    y.square().sum().backward()
    expected.square().sum().backward()
    total = sum(copy.grad for copy in copies)
    torch.testing.assert_close(layer.moka_A["default"].weight.grad, total, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("interaction", ["cross_attention", "text_query", "mean", "none"])
def test_merged_is_as_before(routing, x, interaction):
    model = adapted(MokaSharedAConfig, interaction=interaction)
    real = routing.modality >= 0
    with use_routing(model, routing):
        expected = model(x)[real]
        model.merge_adapter()
        torch.testing.assert_close(model(x)[real], expected, rtol=1e-12, atol=1e-12)
        model.unmerge_adapter()
        torch.testing.assert_close(model(x)[real], expected, rtol=1e-12, atol=1e-12)


def test_merges_completely_only_without_interaction(routing, x):
    with pytest.raises(ValueError, match="would lose the interaction"):
        adapted(MokaSharedAConfig).merge_and_unload()
    model = adapted(MokaSharedAConfig, interaction="none")
    with use_routing(model, routing):
        expected = model(x)
    real = routing.modality >= 0
    torch.testing.assert_close(model.merge_and_unload()(x)[real], expected[real], rtol=1e-12, atol=1e-12)


def test_text_alone(x):
    """A decode step takes a way of its own."""
    model = adapted(MokaSharedAConfig)
    layer, text = model.base_model.model[0], Routing.text(2, 6, x.device)
    A, B = layer.moka_A["default"].weight, layer.moka_B["default"].weight
    with use_routing(model, text), torch.no_grad():
        torch.testing.assert_close(model(x), layer.base_layer(x) + x @ A.T @ B.T * 3, rtol=1e-12, atol=1e-12)


def test_file_holds_one_A(routing, x, tmp_path):
    model = adapted(MokaSharedAConfig, cross_scale=[0.5, 2.0])
    model.save_pretrained(tmp_path)
    again = PeftModel.from_pretrained(adapted(MokaSharedAConfig).unload(), tmp_path)
    with use_routing(model, routing), use_routing(again, routing):
        assert torch.equal(again(x), model(x))
    assert sum(p.numel() for n, p in again.named_parameters() if "moka_" in n) == 2 * 6 + 10 * 2
