"""The adapted Linear: equal to LoRA where it should be, bit-identical to the base where it must be."""

import pytest
import torch
from peft import LoraConfig, get_peft_model
from torch import nn

from moka_peft import MokaConfig, Routing


def one_linear(seed=0, **options):
    torch.manual_seed(seed)
    return nn.Sequential(nn.Linear(8, 6, **options))


def all_text(batch=2, length=5):
    zeros = torch.zeros(batch, length, dtype=torch.long)
    return Routing(zeros, zeros)


def test_one_modality_without_interaction_is_lora():
    x = torch.randn(2, 5, 8)
    common = dict(r=4, lora_alpha=16, target_modules=["0"])
    moka = get_peft_model(one_linear(), MokaConfig(modalities=("text",), interaction="none", **common))
    lora = get_peft_model(one_linear(), LoraConfig(**common))
    layer, twin = moka.base_model.model[0], lora.base_model.model[0]
    nn.init.normal_(layer.moka_B["default"].weight)
    twin.lora_A["default"].weight.data = layer.moka_A_text["default"].weight.data.clone()
    twin.lora_B["default"].weight.data = layer.moka_B["default"].weight.data.clone()
    got, expected = moka(x, routing=all_text()), lora(x)
    assert (got - expected).norm() <= 1e-6 * expected.norm()
    got.sum().backward()
    expected.sum().backward()
    gradient, reference = layer.moka_A_text["default"].weight.grad, twin.lora_A["default"].weight.grad
    assert (gradient - reference).norm() <= 1e-6 * reference.norm()


def test_zero_B_leaves_the_base_bit_identical(tiny_lm, spec, chat):
    base = tiny_lm()
    ids = chat("vvxy", "zz", "axv", "w")
    expected = base(ids).logits
    model = get_peft_model(base, MokaConfig(modalities=("text", "visual", "audio"), routing=spec))
    assert torch.equal(model(ids).logits, expected)


def test_disabled_adapter_is_the_base(adapted, tiny_lm, chat):
    ids = chat("vvxy", "zz")
    model = adapted()
    with model.disable_adapter():
        assert torch.equal(model(ids).logits, tiny_lm()(ids).logits)
    assert not torch.equal(model(ids).logits, tiny_lm()(ids).logits)


def test_absent_modality_gets_zero_gradient_not_none(adapted, chat):
    model = adapted().train()
    model(chat("vvxy", "zz")).logits.sum().backward()
    for name, parameter in model.named_parameters():
        if "moka_A_audio" in name:
            assert parameter.grad is not None and (parameter.grad == 0).all()
        elif "moka_" in name:
            assert (parameter.grad != 0).any(), name


@pytest.mark.parametrize("use_rslora", [False, True])
def test_scaling_follows_lora(use_rslora):
    common = dict(r=4, lora_alpha=12, target_modules=["0"], use_rslora=use_rslora)
    moka = get_peft_model(one_linear(), MokaConfig(modalities=("text",), **common)).base_model.model[0]
    lora = get_peft_model(one_linear(), LoraConfig(**common)).base_model.model[0]
    assert moka.scaling["default"] == lora.scaling["default"]


def test_rank_and_alpha_patterns(adapted):
    model = adapted(rank_pattern={"q_proj": 2}, alpha_pattern={"layers.1.mlp.up_proj": 30})
    layers = model.base_model.model.model.layers
    assert layers[0].self_attn.q_proj.r["default"] == 2 and layers[0].self_attn.k_proj.r["default"] == 3
    assert layers[1].mlp.up_proj.scaling["default"] == 10 and layers[0].mlp.up_proj.scaling["default"] == 2


def test_dropout_changes_training_only(adapted, chat):
    model = adapted(lora_dropout=0.5)
    ids = chat("vvxy", "zz")
    assert torch.equal(model(ids).logits, model(ids).logits)
    model.train()
    assert not torch.equal(model(ids).logits, model(ids).logits)


def test_layer_alone_refuses_to_run(adapted):
    layer = adapted().base_model.model.model.layers[0].self_attn.q_proj
    with pytest.raises(RuntimeError, match=r"q_proj' ran outside a forward of the model"):
        layer(torch.randn(1, 3, 32))


def test_repr_shows_the_implementation(adapted):
    assert "interaction=mean, impl=eager" in repr(
        adapted(interaction="mean", impl="eager").base_model.model.model.layers[0].mlp.up_proj
    )


def test_gaussian_and_random_initialisation():
    torch.manual_seed(0)
    options = dict(r=64, target_modules=["0"], modalities=("text", "visual"))
    layer = get_peft_model(one_linear(), MokaConfig(init_lora_weights="gaussian", **options)).base_model.model[0]
    assert abs(layer.moka_A_visual["default"].weight.std().item() * 64 - 1) < 0.2
    assert (layer.moka_B["default"].weight == 0).all()
    assert not torch.equal(layer.moka_A_text["default"].weight, layer.moka_A_visual["default"].weight)
    layer = get_peft_model(one_linear(), MokaConfig(init_lora_weights=False, **options)).base_model.model[0]
    assert (layer.moka_B["default"].weight != 0).any()
