"""The adapted Linear as one function: equal to its parts, what it keeps, and what it refuses."""

import pytest
import torch
import torch.nn.functional as F
from peft import LoraConfig, get_peft_model
from torch import nn
from torch.utils.checkpoint import checkpoint

from moka_peft import MokaConfig, Routing
from moka_peft.ops import INTERACTIONS, eager, moka_delta
from moka_peft.ops.adapted import adapted_linear
from moka_peft.ops.compiled import compiled_update
from moka_peft.ops.dropout import Dropout
from moka_peft.ops.update import Update
from moka_peft.tuner.channel import RunningForward, channel_of


def routing(batch=2, length=12):
    modality = torch.tensor([[0, 1, 1, 2, 0, 0, 1, 2, 2, 0, 0, -1]]).repeat(batch, 1)
    turn = torch.tensor([[0, 1, 1, 1, 1, 1, 2, 2, 0, 2, 0, 0]]).repeat(batch, 1)
    return Routing(modality[:, :length], turn[:, :length])


def update_of(interaction="cross_attention", dropout=None, dtype=torch.float64):
    options = {"scale_before_attention": False, "instruction_span": "tokens", "dropout": dropout}
    return Update.of(routing(), dtype, eager, scaling=1.5, cross_scale=(0.7, 1.2), interaction=interaction, **options)


def tensors(*shapes):
    torch.manual_seed(0)
    return [torch.randn(*shape, dtype=torch.float64, requires_grad=True) for shape in shapes]


SHAPES = ((2, 12, 5), (3, 5), (3, 5), (3, 5), (4, 3))


@pytest.mark.parametrize("form", ["weight", "weight and bias", "result", "alone"])
@pytest.mark.parametrize("interaction", INTERACTIONS)
def test_gradients_are_those_of_the_function(interaction, form):
    x, *A, B = tensors(*SHAPES)
    update, (weight, bias, result) = update_of(interaction), tensors((4, 5), (4,), (2, 12, 4))
    weight, bias = weight.detach(), bias.detach()
    given = {
        "weight": (weight, None, None),
        "weight and bias": (weight, bias, None),
        "result": (None, None, result),
        "alone": (None, None, None),
    }[form]

    def run(x, B, result, *A):
        return adapted_linear(x, *given[:2], result if given[2] is not None else None, A, B, update)

    assert torch.autograd.gradcheck(run, (x, B, result, *A))
    base = F.linear(x, weight, bias if form.endswith("bias") else None) if form.startswith("weight") else 0
    base = result if form == "result" else base
    options = {"scaling": 1.5, "cross_scale": (0.7, 1.2), "interaction": interaction}
    expected = base + moka_delta(x, torch.stack(A), B, routing(), impl="reference", **options)
    torch.testing.assert_close(run(x, B, result, *A), expected, rtol=1e-12, atol=1e-12)


def test_dropout_gradients_are_those_of_the_masked_function():
    x, *A, B = tensors(*SHAPES)
    update = update_of(dropout=Dropout(0.25, seed=5))
    assert torch.autograd.gradcheck(lambda x, B, *A: adapted_linear(x, None, None, None, A, B, update), (x, B, *A))
    whole = adapted_linear(x, None, None, None, A, B, update_of())
    assert not torch.allclose(adapted_linear(x, None, None, None, A, B, update), whole)


def test_dropout_leaves_the_mean_as_it_is():
    """Without interaction the delta is linear in x, so its mean over masks is that without dropout."""
    x, *A, B = (t.detach() for t in tensors(*SHAPES))
    whole = adapted_linear(x, None, None, None, A, B, update_of("none"))
    runs = torch.stack(
        [adapted_linear(x, None, None, None, A, B, update_of("none", Dropout(0.2, seed))) for seed in range(4000)]
    )
    error = (runs.mean(0) - whole).abs() / (runs.std(0) / len(runs) ** 0.5 + 1e-12)
    assert error.max() < 5


def test_a_second_derivative_is_refused():
    x, *A, B = tensors(*SHAPES)
    y = adapted_linear(x, None, None, None, A, B, update_of())
    with pytest.raises(RuntimeError, match=r"no second derivative .create_graph=True.*impl='reference'"):
        torch.autograd.grad(y.sum(), x, create_graph=True)


def test_the_output_may_be_changed_in_place():
    """As some models do with queries (clamp_)."""
    x, *A, B = tensors(*SHAPES)
    expected = adapted_linear(x, None, None, None, A, B, update_of()).clamp(-1, 1)
    y = adapted_linear(x, None, None, None, A, B, update_of())
    y.view(2, 12, 2, 2).transpose(1, 2).clamp_(-1, 1)
    torch.testing.assert_close(y, expected)
    assert torch.equal(torch.autograd.grad(y.sum(), x)[0], torch.autograd.grad(expected.sum(), x)[0])


def test_autocast_does_not_narrow_the_attention_of_a_compiled_graph():
    """Some backends run a graph's operators with autocast left on."""
    x, *A, _ = (t.detach().to(torch.bfloat16).requires_grad_() for t in tensors(*SHAPES))
    options = {"scaling": 1.5, "cross_scale": (0.7, 1.2), "interaction": "cross_attention", "impl": "eager"}
    options |= {"scale_before_attention": False, "instruction_span": "tokens"}
    found = []
    for enabled in (False, True):
        with torch.autocast("cpu", torch.bfloat16, enabled=enabled):
            u = compiled_update(x, torch.stack(A), routing(), **options)
            found.append((u, *torch.autograd.grad(u.float().square().sum(), (x, *A))))
    assert all(torch.equal(plain, cast) for plain, cast in zip(*found, strict=True))


def test_what_is_not_a_number_stays_in_its_sample():
    x, *A, B = (t.detach() for t in tensors(*SHAPES))
    x[0] = torch.nan
    y = adapted_linear(x, None, None, None, A, B, update_of())
    assert y[0, :11].isnan().all() and torch.isfinite(y[1]).all()


def layers(dropout=0.0, dtype=torch.float32, width=32, rank=4):
    """LoRA's and MokA's adapted Linear of the same size, and the latter's running forward."""
    sizes = {"r": rank, "lora_dropout": dropout, "target_modules": ["0"]}

    def base():
        return nn.Sequential(nn.Linear(width, 48)).to(dtype)

    lora = get_peft_model(base(), LoraConfig(**sizes), autocast_adapter_dtype=False).train()
    moka = get_peft_model(
        base(), MokaConfig(modalities=("text", "visual", "audio"), **sizes), autocast_adapter_dtype=False
    ).train()
    for layer in (lora.base_model.model[0].lora_B, moka.base_model.model[0].moka_B):
        nn.init.normal_(layer["default"].weight)
    return lora.base_model.model[0], moka.base_model.model[0], channel_of(moka)


def bytes_kept(layer, x):
    """By the backward, each storage once, parameters left out."""
    parameters, kept = {p.data_ptr() for p in layer.parameters()}, {}

    def pack(tensor):
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in parameters:
            kept[storage.data_ptr()] = storage.nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        layer(x)
    return sum(kept.values())


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("dropout", [0.0, 0.1])
def test_no_more_is_kept_than_by_lora(dropout, dtype):
    lora, moka, channel = layers(dropout, dtype)
    x = torch.randn(2, 12, 32, dtype=dtype, requires_grad=True)
    with channel.holding(RunningForward({"default": routing()})):
        kept = bytes_kept(moka, x)
    assert kept == (24 * 32 + 24 * 4) * dtype.itemsize <= bytes_kept(lora, x)


def test_recomputation_draws_the_same_mask():
    _, layer, channel = layers(dropout=0.5)
    x = torch.randn(2, 12, 32)
    gradients = []
    for recomputed in (False, True):
        torch.manual_seed(3)
        layer.zero_grad()
        given = x.clone().requires_grad_()
        with channel.holding(RunningForward({"default": routing()})):
            y = checkpoint(layer, given, use_reentrant=False) if recomputed else layer(given)
            y.square().sum().backward()
        gradients.append((given.grad, layer.moka_A_visual["default"].weight.grad))
    for plain, again in zip(*gradients, strict=True):
        assert torch.equal(plain, again)


@pytest.mark.parametrize("hook", ["forward", "pre-forward", "instance", "global", "trained weight", "trained bias"])
def test_base_that_is_more_than_a_matmul_is_called(hook):
    _, layer, channel = layers()
    x, base, calls = torch.randn(2, 12, 32), layer.base_layer, []
    with channel.holding(RunningForward({"default": routing()})):
        expected = layer(x)
        forward = base.forward
        if hook == "forward":
            base.register_forward_hook(lambda *_: calls.append(1))
        elif hook == "pre-forward":
            base.register_forward_pre_hook(lambda *_: calls.append(1))
        elif hook == "global":
            handle = nn.modules.module.register_module_forward_hook(
                lambda m, *_: calls.append(1) if m is base else None
            )
        elif hook == "instance":
            base.forward = lambda x: calls.append(1) or forward(x)
        else:
            (base.weight if "weight" in hook else base.bias).requires_grad_()
        y = layer(x)
    if hook == "global":
        handle.remove()
    torch.testing.assert_close(y, expected)
    if "trained" in hook:
        y.sum().backward()
        assert (base.weight if "weight" in hook else base.bias).grad is not None
    else:
        assert calls == [1]
