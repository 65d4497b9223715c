"""Uni-modal LoRA against its formula, token by token."""

import pytest
import torch
from peft import get_peft_model

from moka_peft import Routing, use_routing
from moka_peft.baselines.uni_modal_lora import UniModalLoraConfig

NAMES = ("text", "visual", "audio")


def adapted():
    torch.manual_seed(0)
    base = torch.nn.Sequential(torch.nn.Linear(6, 10)).double()
    names = dict(target_modules=["0"], modalities=NAMES, init_lora_weights=False)
    return get_peft_model(base, UniModalLoraConfig(r=2, lora_alpha=6, **names))


def routing_of(*rows, names=NAMES):
    modality = torch.tensor(rows)
    return Routing(modality, torch.zeros_like(modality), names)


def reference(layer, x, modality):
    y = layer.base_layer(x)
    rows = []
    for b in range(x.shape[0]):
        for t in range(x.shape[1]):
            delta = torch.zeros_like(y[b, t])
            if modality[b, t] >= 0:
                A, B = (getattr(layer, f"moka_{m}_{NAMES[modality[b, t]]}")["default"].weight for m in "AB")
                delta = B @ A @ x[b, t] * 6 / 2
            rows.append(y[b, t] + delta)
    return torch.stack(rows).view_as(y)


def test_formula_and_gradients():
    model, x = adapted(), torch.randn(2, 5, 6, dtype=torch.float64, requires_grad=True)
    routing = routing_of([0, 1, 1, 2, 0], [-1, -1, 0, 1, 0])
    layer, sent = model.base_model.model[0], torch.randn(2, 5, 10, dtype=torch.float64)
    weights = [x, *(p for p in model.parameters() if p.requires_grad)]
    with use_routing(model, routing):
        y = model(x)
    expected = reference(layer, x, routing.modality)
    torch.testing.assert_close(y, expected, rtol=1e-12, atol=1e-12)
    got = torch.autograd.grad(y, weights, sent)
    assert len(got) == 7
    for gradient, wanted in zip(got, torch.autograd.grad(expected, weights, sent), strict=True):
        torch.testing.assert_close(gradient, wanted, rtol=1e-12, atol=1e-12)


def test_absent_modality_gets_zero_gradients():
    model = adapted()
    with use_routing(model, routing_of([0, 1])):
        model(torch.randn(1, 2, 6, dtype=torch.float64)).sum().backward()
    layer = model.base_model.model[0]
    assert not layer.moka_A_audio["default"].weight.grad.any()
    assert not layer.moka_B_audio["default"].weight.grad.any()


def test_modality_without_a_pair():
    model = adapted()
    with (
        use_routing(model, routing_of([0, 3], names=None)),
        pytest.raises(ValueError, match=r"holds modality 3, but the adapter has 3 \(0 is text\)"),
    ):
        model(torch.randn(1, 2, 6, dtype=torch.float64))


def test_merging_is_refused():
    model = adapted()
    before = model.base_model.model[0].base_layer.weight.clone()
    for merge in (model.merge_adapter, model.merge_and_unload):
        with pytest.raises(ValueError, match="cannot be merged: what it adds depends on the token"):
            merge()
    assert torch.equal(model.base_model.model[0].base_layer.weight, before)
