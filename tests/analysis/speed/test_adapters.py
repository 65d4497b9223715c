"""Adapters to compare: the same Linears and sizes on the same weights; and what is counted of them."""

import pytest
import torch
from peft.tuners.lora import LoraLayer
from torch import nn

from moka_peft.analysis.speed import (
    ADAPTERS,
    ChatLayout,
    ChatTokens,
    adapt,
    kept_bytes,
    sharing_copy,
    small_qwen2_5_vl,
    training_step,
)
from moka_peft.analysis.speed.kept import saved_tensors
from moka_peft.training.activations import enable_checkpointing
from moka_peft.tuner.layer import MokaLinear

LAYOUT = ChatLayout(batch=2, length=40, instruction=8)


@pytest.fixture(scope="module")
def base():
    return small_qwen2_5_vl(width=64, layers=2, vocabulary=128)


@pytest.mark.parametrize("method", ["lora", "dora", "moka"])
def test_all_adapt_the_decoders_projections_with_equal_sizes(base, method):
    model = adapt(sharing_copy(base), method, ChatTokens.of(base.config).spec, rank=4, dropout=0.1)
    layers = {n: m for n, m in model.named_modules() if isinstance(m, LoraLayer | MokaLinear)}
    assert len(layers) == 14 and all(".language_model.layers." in name for name in layers)
    for layer in layers.values():
        assert (layer.r["default"], layer.scaling["default"]) == (4, 2.0)
        dropout = layer.moka_dropout if isinstance(layer, MokaLinear) else layer.lora_dropout
        assert dropout["default"].p == 0.1
        B = layer.moka_B if isinstance(layer, MokaLinear) else layer.lora_B
        assert B["default"].weight.any()


def test_an_unknown_adapter_is_refused(base):
    with pytest.raises(ValueError, match="`method`: expected one of lora, dora, .*, got 'ia3'"):
        adapt(base, "ia3", ChatTokens.of(base.config).spec)
    assert set(ADAPTERS) >= {"lora", "dora", "moka", "moka eager", "moka triton", "moka reference"}


def test_a_sharing_copy_has_the_same_weights_and_its_own_modules(base):
    copied = sharing_copy(base)
    assert all(a is b for a, b in zip(base.parameters(), copied.parameters(), strict=True))
    adapt(copied, "moka", ChatTokens.of(base.config).spec)
    assert not any(isinstance(module, MokaLinear) for module in base.modules())


@pytest.mark.parametrize("method", ["base", "lora", "moka"])
def test_a_training_step_moves_the_adapter_alone(base, method):
    chats, copied = ChatTokens.of(base.config), sharing_copy(base)
    model = copied if method == "base" else adapt(copied, method, chats.spec)
    trained = [p for p in model.parameters() if p.requires_grad]
    before, frozen = [p.detach().clone() for p in trained], base.get_input_embeddings().weight.clone()
    training_step(model, chats.write(LAYOUT), learning_rate=0.1)()
    assert bool(trained) == (method != "base")
    assert all(p.grad is not None and not torch.equal(p, old) for p, old in zip(trained, before, strict=True))
    assert torch.equal(base.get_input_embeddings().weight, frozen)


def test_checkpointing_keeps_less(base):
    inputs, counts = ChatTokens.of(base.config).write(LAYOUT), []
    for checkpointing in (False, True):
        model = sharing_copy(base)
        if checkpointing:
            enable_checkpointing(model)
        training_step(model, inputs)
        counts.append(kept_bytes(lambda model=model: model(**inputs, use_cache=False).loss, model.parameters()))
    assert counts[1] < counts[0] / 2


def test_kept_bytes_are_those_of_storages_that_autograd_saves():
    x, weight = torch.ones(8, requires_grad=True), nn.Parameter(torch.ones(8))

    def forward() -> torch.Tensor:
        return (x * weight).exp().view(2, 4) * x.view(2, 4)  # saves x (twice, once as a view), weight, exp's output

    assert kept_bytes(forward, []) == 3 * 32
    assert kept_bytes(forward, [weight]) == 2 * 32
    assert kept_bytes(forward, [weight, x]) == 32
    assert kept_bytes(forward, saved_tensors(forward)) == 32
