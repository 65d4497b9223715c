"""Uni + MM LoRA and its gate against their formulas, token by token."""

import pytest
import torch
from peft import get_peft_model

from moka_peft import Routing, use_routing
from moka_peft.baselines.uni_mm_lora import UniMmLoraConfig, UniMmLoraGateConfig

NAMES = ("text", "visual", "audio")
CONFIGS = pytest.mark.parametrize("config", [UniMmLoraConfig, UniMmLoraGateConfig])
ROUTING = [[0, 1, 1, 2, 0], [-1, -1, 0, 1, 0]]


def adapted(config):
    torch.manual_seed(0)
    base = torch.nn.Sequential(torch.nn.Linear(6, 10)).double()
    names = dict(target_modules=["0"], modalities=NAMES, init_lora_weights=False)
    return get_peft_model(base, config(r=2, lora_alpha=6, **names))


def reference(layer, x, modality, has_gate):
    def weight(name):
        return getattr(layer, name)["default"].weight

    y = layer.base_layer(x)
    deltas = torch.zeros_like(y)
    for b, t in (modality >= 0).nonzero().tolist():
        own = weight("moka_B") @ weight(f"moka_A_{NAMES[modality[b, t]]}") @ x[b, t]
        shared = weight("moka_B2") @ weight("moka_A2") @ x[b, t]
        if has_gate:
            g = 1 / (1 + torch.exp(-(weight("moka_router")[0] @ x[b, t])))
            own, shared = (1 - g) * own, g * shared
        deltas[b, t] = 6 / 2 * (own + shared)
    return y + deltas


@CONFIGS
def test_formula_and_gradients(config):
    model, x = adapted(config), torch.randn(2, 5, 6, dtype=torch.float64, requires_grad=True)
    routing = Routing(torch.tensor(ROUTING), torch.zeros(2, 5, dtype=torch.long), NAMES)
    layer, sent = model.base_model.model[0], torch.randn(2, 5, 10, dtype=torch.float64)
    weights = [x, *(p for p in model.parameters() if p.requires_grad)]
    with use_routing(model, routing):
        y = model(x)
    expected = reference(layer, x, routing.modality, config.has_gate)
    torch.testing.assert_close(y, expected, rtol=1e-12, atol=1e-12)
    got = torch.autograd.grad(y, weights, sent)
    assert len(got) == 1 + 4 + 2 + config.has_gate
    for gradient, wanted in zip(got, torch.autograd.grad(expected, weights, sent), strict=True):
        torch.testing.assert_close(gradient, wanted, rtol=1e-12, atol=1e-12)


@CONFIGS
def test_starts_as_the_base(config):
    base = torch.nn.Sequential(torch.nn.Linear(6, 10))
    x, routing = torch.randn(1, 2, 6), Routing(torch.tensor([[0, 1]]), torch.zeros(1, 2, dtype=torch.long), NAMES)
    expected = base(x)
    model = get_peft_model(base, config(target_modules=["0"], modalities=NAMES))
    with use_routing(model, routing):
        assert torch.equal(model(x), expected)


@CONFIGS
def test_merging_is_refused(config):
    model = adapted(config)
    for merge in (model.merge_adapter, model.merge_and_unload):
        with pytest.raises(ValueError, match="cannot be merged: what it adds depends on the token"):
            merge()
