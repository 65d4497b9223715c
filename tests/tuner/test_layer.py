"""The adapted Linear: equal to LoRA where it should be, bit-identical to the base where it must be."""

import pytest
import torch
from peft import LoraConfig, get_peft_model
from torch import nn

from moka_peft import MokaConfig, Routing
from moka_peft.tuner.computation import updated
from moka_peft.tuner.rows import routing_of


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


def saved_bytes(model, ids, dtype):
    """Bytes of activations in `dtype` that a training forward keeps for its backward."""
    sizes = {}

    def keep(tensor):
        if tensor.dtype == dtype and tensor.dim() >= 2:
            sizes[tensor.data_ptr()] = tensor.numel() * tensor.element_size()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        model(ids).logits.sum()
    return sum(sizes.values())


def test_no_wider_copy_of_the_input_is_kept(adapted, tiny_lm, chat):
    """PEFT's LoRA casts x to the adapter's float32 and keeps that copy in every layer."""
    ids = chat("vvxyzq" * 4, "pp" * 8)
    base = tiny_lm().to(torch.bfloat16).train()
    narrow = saved_bytes(base, ids, torch.float32)
    lora = saved_bytes(get_peft_model(tiny_lm().to(torch.bfloat16), LoraConfig(r=3)).train(), ids, torch.float32)
    model = adapted(base=tiny_lm().to(torch.bfloat16)).train()
    assert {p.dtype for n, p in model.named_parameters() if "moka_" in n} == {torch.float32}
    input_in_float32 = ids.shape[1] * 32 * 4  # one hidden state of 32 dimensions
    kept = saved_bytes(model, ids, torch.float32) - narrow
    assert kept < lora - narrow and kept < 8 * input_in_float32  # rank-sized tensors of 14 layers


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("adapter_dtype", [torch.float32, None])
def test_half_precision_is_near_float64(adapted, tiny_lm, chat, dtype, adapter_dtype):
    """With float32 or equally narrow weights: 2.3 times the error of computing in float32 and rounding the result."""
    layer = adapted().base_model.model.model.layers[0].mlp.up_proj
    x = torch.randn(1, 40, 32).to(dtype)
    modality = torch.tensor([[0, 1, 1, 2, 0, 0, 0, 2] * 5])
    routing = Routing(modality, (modality >= 0).long())
    exact = delta_of(layer.double(), x.double(), routing)
    layer.float()
    floor = (delta_of(layer, x.float(), routing).to(dtype).double() - exact).norm()
    for name, parameter in layer.named_parameters():
        if "moka_" in name:
            parameter.data = parameter.data.to(adapter_dtype or dtype)
    assert (delta_of(layer, x, routing).double() - exact).norm() < 3 * floor


def delta_of(layer, x, routing):
    nothing = x.new_zeros(*x.shape[:-1], layer.out_features)
    return updated(layer._adapter("default"), x, routing_of(x, routing, "none"), layer.base_layer, nothing)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_autocast_trains_where_media_have_no_instruction(adapted, chat, dtype):
    model = adapted().train()
    with torch.autocast("cpu", dtype):
        loss = model(chat("vv", "pp", "vvxy", "p")).logits.float().square().mean()
    loss.backward()
    gradients = [p.grad for n, p in model.named_parameters() if "moka_" in n]
    assert all(torch.isfinite(g).all() for g in gradients) and any(g.abs().max() > 0 for g in gradients)


def test_flattened_and_stacked_inputs(adapted):
    """[B S, I] as expert layers see it, and [N, B, S, I] as layers with several residual streams do."""
    layer = adapted().base_model.model.model.layers[0].mlp.up_proj
    modality = torch.tensor([[0, 1, 0, 2], [1, 0, 0, -1]])
    routing = Routing(modality, (modality >= 0).long())
    x = torch.randn(3, 2, 4, 32)
    rows = torch.stack([delta_of(layer, stream, routing) for stream in x])
    torch.testing.assert_close(delta_of(layer, x, routing), rows)
    torch.testing.assert_close(delta_of(layer, x[0].flatten(0, 1), routing), rows[0].flatten(0, 1))
    with pytest.raises(ValueError, match=r"`routing` describes \[2, 4\] tokens, but the layer got \[5\]"):
        delta_of(layer, x[0].flatten(0, 1)[:5], routing)
