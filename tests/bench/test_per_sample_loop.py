"""The loop over samples gives what `moka_delta` gives on the same weights, forward and backward."""

import pytest
import torch
from torch import nn

from moka_peft.analysis.speed import ChatLayout, ChatTokens
from moka_peft.analysis.speed.adapters import routed
from moka_peft.ops import moka_delta
from moka_peft.tuner.layer import MokaLinear


@pytest.fixture
def pair(load):
    """pair(modalities) -> a model with the loop on one Linear, in float64, and a routing with one turn per sample."""

    def make(modalities, alternating):
        torch.manual_seed(0)
        chats = ChatTokens(range(1000), modalities)
        layout = ChatLayout(batch=3, length=60, instruction=10, modalities=modalities, alternating=alternating)
        variant = load("providers").Variant("per_sample_loop", rank=4)
        model = variant.on(nn.Sequential(nn.Linear(12, 20).double()), chats.spec)
        return model, chats.routing(layout)

    return make


@pytest.mark.parametrize(("modalities", "alternating"), [(2, False), (3, False), (4, True)])
def test_equals_moka_delta(pair, modalities, alternating):
    model, routing = pair(modalities, alternating)
    loop = model.base_model.model[0]
    assert type(loop).__name__ == "PerSampleLoop"
    moka: MokaLinear = loop.moka
    routing.turn[2] = 0  # a sample without an instruction
    x, g = torch.randn(3, 60, 12, dtype=torch.float64), torch.randn(3, 60, 20, dtype=torch.float64)
    results = []
    for own in (loop, None):
        model.zero_grad()
        given = x.clone().requires_grad_()
        if own is None:
            A, B = moka.stacked_A("default"), moka.moka_B["default"].weight
            update = moka_delta(given, A, B, routing, scaling=2.0, cross_scale=1.0)
            output = moka.base_layer(given) + update
        else:
            with routed(model, routing):
                output = own(given)
        output.backward(g)
        results.append([output, given.grad, *(p.grad.clone() for p in model.parameters() if p.requires_grad)])
    assert len(results[0]) == 3 + modalities
    for found, expected in zip(*results, strict=True):
        torch.testing.assert_close(found, expected, rtol=1e-10, atol=1e-10)


def test_the_loop_stands_in_for_every_layer_of_a_model(load):
    model = nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 4))
    adapted = load("providers").Variant("per_sample_loop", rank=2, dropout=0.1).on(model, ChatTokens(range(20)).spec)
    kinds = [type(layer).__name__ for layer in adapted.base_model.model]
    assert kinds == ["PerSampleLoop", "PerSampleLoop"]
