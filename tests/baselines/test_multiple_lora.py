"""Multiple LoRA against its formula."""

import pytest
import torch
from peft import get_peft_model

from moka_peft import Routing, use_routing
from moka_peft.baselines.multiple_lora import MultipleLoraConfig


def adapted(**settings):
    torch.manual_seed(0)
    base = torch.nn.Sequential(torch.nn.Linear(6, 10)).double()
    names = dict(target_modules=["0"], modalities=("text", "visual", "audio"), init_lora_weights=False)
    return get_peft_model(base, MultipleLoraConfig(r=2, lora_alpha=6, **names, **settings))


@pytest.fixture
def routing():
    return Routing(torch.tensor([[0, 1, 2, 0]]), torch.zeros(1, 4, dtype=torch.long), ("text", "visual", "audio"))


@pytest.mark.parametrize("num_experts", [None, 5])
def test_formula(routing, num_experts):
    model = adapted(num_experts=num_experts)
    x = torch.randn(1, 4, 6, dtype=torch.float64)
    layer = model.base_model.model[0]
    pairs = range(num_experts or 3)
    A = [getattr(layer, f"moka_A_{i}")["default"].weight for i in pairs]
    B = [getattr(layer, f"moka_B_{i}")["default"].weight for i in pairs]
    expected = layer.base_layer(x) + sum(x @ a.T @ b.T for a, b in zip(A, B, strict=True)) * 6 / 2
    with use_routing(model, routing):
        torch.testing.assert_close(model(x), expected, rtol=1e-12, atol=1e-12)
        merged = model.merge_and_unload()
    torch.testing.assert_close(merged(x), expected, rtol=1e-12, atol=1e-12)


def test_wrong_number_of_experts():
    with pytest.raises(ValueError, match="`num_experts`: expected an integer > 0 or None, got 0"):
        MultipleLoraConfig(num_experts=0)
