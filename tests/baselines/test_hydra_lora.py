"""HydraLoRA against its formula."""

import pytest
import torch
from peft import get_peft_model

from moka_peft import Routing, use_routing
from moka_peft.baselines.experts import softmax_gates
from moka_peft.baselines.hydra_lora import HydraLoraConfig

MODALITIES = ("text", "visual", "audio")


def adapted(**settings):
    torch.manual_seed(0)
    base = torch.nn.Sequential(torch.nn.Linear(6, 10)).double()
    names = dict(target_modules=["0"], modalities=MODALITIES, init_lora_weights=False)
    return get_peft_model(base, HydraLoraConfig(r=2, lora_alpha=6, **{**names, **settings}))


@pytest.fixture
def routing():
    return Routing(torch.tensor([[0, 1, 2, 0], [0, 0, -1, -1]]), torch.zeros(2, 4, dtype=torch.long), MODALITIES)


def reference(x, A, B, router, scaling):
    """Token by token and expert by expert: x [B, S, I] -> [B, S, O]; what is padding does not matter."""
    y = x.new_zeros(*x.shape[:2], len(B[0]))
    for b, t in torch.cartesian_prod(torch.arange(x.shape[0]), torch.arange(x.shape[1])).tolist():
        gate = torch.softmax(router @ x[b, t], 0)
        for i in range(len(B)):
            y[b, t] += scaling * gate[i] * (B[i] @ (A @ x[b, t]))
    return y


@pytest.mark.parametrize("num_experts", [None, 1, 5])
def test_formula(routing, num_experts):
    model = adapted(num_experts=num_experts)
    layer = model.base_model.model[0]
    x = torch.randn(2, 4, 6, dtype=torch.float64)
    A, router = layer.moka_A["default"].weight, layer.moka_router["default"].weight
    B = [getattr(layer, f"moka_B_{i}")["default"].weight for i in range(num_experts or 3)]
    with use_routing(model, routing):
        expected = layer.base_layer(x) + reference(x, A, B, router, 6 / 2)
        torch.testing.assert_close(model(x), expected, rtol=1e-12, atol=1e-12)


def test_gates_sum_to_one():
    gates = softmax_gates(torch.randn(2, 4, 6, dtype=torch.bfloat16), torch.randn(3, 6, dtype=torch.bfloat16))
    assert gates.dtype == torch.float32  # bfloat16 would miss 1 by up to 2^-8
    torch.testing.assert_close(gates.sum(-1), torch.ones(2, 4), rtol=1e-6, atol=0)


def test_starts_as_the_base(routing):
    model = adapted(init_lora_weights=True)
    x = torch.randn(2, 4, 6, dtype=torch.float64)
    with use_routing(model, routing):
        torch.testing.assert_close(model(x), model.base_model.model[0].base_layer(x), rtol=0, atol=0)
    assert model.base_model.model[0].moka_router["default"].weight.std() > 0.1  # as A: its gates differ from the start


@pytest.mark.parametrize("merge", ["merge_adapter", "merge_and_unload"])
def test_no_weight_holds_it(merge):
    with pytest.raises(ValueError, match="cannot be merged: what it adds depends on the token"):
        getattr(adapted(), merge)()


def test_wrong_number_of_experts():
    with pytest.raises(ValueError, match="`num_experts`: expected an integer > 0 or None, got -1"):
        HydraLoraConfig(num_experts=-1)
