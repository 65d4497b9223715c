"""LoRAMoE and its balance loss against their formulas."""

import pytest
import torch
from peft import get_peft_model

from moka_peft import Routing, use_routing
from moka_peft.baselines.lora_moe import LoraMoeConfig, balance_loss

MODALITIES = ("text", "visual", "audio")
MODALITY = torch.tensor([[0, 1, 2, 0], [0, 0, -1, -1]])


def adapted(**settings):
    torch.manual_seed(0)
    base = torch.nn.Sequential(torch.nn.Linear(6, 10)).double()
    names = dict(target_modules=["0"], modalities=MODALITIES, init_lora_weights=False)
    return get_peft_model(base, LoraMoeConfig(r=2, lora_alpha=6, **{**names, **settings}))


def weights(model):
    """A's, B's and the router of the only layer."""
    layer = model.base_model.model[0]
    named = {name.split(".")[0]: weight for name, weight in layer.named_parameters() if "moka_" in name}
    A, B = ([named[name] for name in sorted(named) if name.startswith(f"moka_{kind}_")] for kind in "AB")
    return A, B, named["moka_router"]


@pytest.fixture
def routing():
    return Routing(MODALITY, torch.zeros_like(MODALITY), MODALITIES)


@pytest.fixture
def x():
    return torch.randn(2, 4, 6, dtype=torch.float64, generator=torch.Generator().manual_seed(1))


def reference(x, A, B, router, scaling):
    """Token by token and expert by expert: x [B, S, I] -> [B, S, O]; what is padding does not matter."""
    y = x.new_zeros(*x.shape[:2], len(B[0]))
    for b, t in torch.cartesian_prod(torch.arange(x.shape[0]), torch.arange(x.shape[1])).tolist():
        gate = torch.softmax(router @ x[b, t], 0)
        for i in range(len(B)):
            y[b, t] += scaling * gate[i] * (B[i] @ (A[i] @ x[b, t]))
    return y


def reference_loss(x, router, contrast):
    """The balance loss, entry of Z by entry, over the modalities that x [B, S, I] has."""
    entries = []
    for m in sorted(set(MODALITY.flatten().tolist()) - {-1}):
        gates = torch.stack([torch.softmax(router @ row, 0) for row in x[MODALITY == m]])
        for n in range(len(router)):
            entries.append(gates[:, n].mean() * (1 - contrast if n % 3 == m else 1 + contrast))
    mean = sum(entries) / len(entries)
    return sum((z - mean) ** 2 for z in entries) / len(entries) / mean**2


@pytest.mark.parametrize("num_experts", [None, 1, 5])
def test_formula(routing, x, num_experts):
    model = adapted(num_experts=num_experts)
    A, B, router = weights(model)
    assert len(A) == len(B) == len(router) == (num_experts or 3)
    with use_routing(model, routing):
        expected = model.base_model.model[0].base_layer(x) + reference(x, A, B, router, 6 / 2)
        torch.testing.assert_close(model(x), expected, rtol=1e-12, atol=1e-12)


def gradients(model, routing, x):
    model.zero_grad()
    with use_routing(model, routing):
        model(x).square().sum().backward()
    A, B, router = weights(model)
    return [weight.grad.clone() for weight in (*A, *B, router)]


@pytest.mark.parametrize("num_experts", [None, 2, 5])
def test_gradient_of_the_balance_loss(routing, x, num_experts):
    model = adapted(num_experts=num_experts, balance_weight=0.7, balance_contrast=0.3)
    A, B, router = weights(model)
    y = model.base_model.model[0].base_layer(x) + reference(x, A, B, router, 6 / 2)
    loss = y.square().sum() + 0.7 * reference_loss(x, router, 0.3)
    expected = list(torch.autograd.grad(loss, [*A, *B, router]))
    torch.testing.assert_close(gradients(model.train(), routing, x), expected, rtol=1e-11, atol=1e-11)


@pytest.mark.parametrize("num_experts", [1, 2, 3, 5])
def test_value_of_the_balance_loss(x, num_experts):
    router = torch.randn(num_experts, 6, dtype=torch.float64, generator=torch.Generator().manual_seed(2))
    got = balance_loss((x @ router.T).softmax(-1), MODALITY, 3, 0.3)
    torch.testing.assert_close(got, reference_loss(x, router, 0.3), rtol=1e-12, atol=1e-15)


def test_balance_of_absent_modalities_and_padding():
    gates = torch.tensor([[[0.5, 0.3, 0.2], [0.1, 0.8, 0.1], [0.9, 0.0, 0.1]]], dtype=torch.float64)
    text_and_visual = balance_loss(gates, torch.tensor([[0, 1, -1]]), 3, 0.2)
    Z = torch.tensor([[0.5 * 0.8, 0.3 * 1.2, 0.2 * 1.2], [0.1 * 1.2, 0.8 * 0.8, 0.1 * 1.2]], dtype=torch.float64)
    torch.testing.assert_close(text_and_visual, Z.var(correction=0) / Z.mean() ** 2, rtol=1e-12, atol=0)
    assert balance_loss(gates, torch.full((1, 3), -1), 3, 0.2) == 0


def test_least_balance_loss_leaves_an_expert_to_its_modality():
    own, other = 1.2 / (1.2 + 2 * 0.8), 0.8 / (1.2 + 2 * 0.8)  # in the ratio of 1 + contrast to 1 - contrast
    shares = torch.full((3, 3), other, dtype=torch.float64).fill_diagonal_(own)
    modality = torch.tensor([[0, 1, 2]])
    assert balance_loss(shares[None], modality, 3, 0.2) < 1e-30
    assert balance_loss(shares[None].roll(1, -1), modality, 3, 0.2) > 0.01
    assert balance_loss(torch.full((1, 3, 3), 1 / 3), modality, 3, 0.2) > 0.01


def test_balance_loss_is_as_exact_under_autocast():
    gates = (torch.randn(2, 40, 3, generator=torch.Generator().manual_seed(3)) / 50).softmax(-1).requires_grad_()
    modality = torch.arange(80).view(2, 40) % 3
    found = []
    for autocast in (False, True):
        with torch.autocast("cpu", torch.bfloat16, enabled=autocast):
            loss = balance_loss(gates, modality, 3, 0.0)
        found.append((loss, *torch.autograd.grad(loss, gates)))
    torch.testing.assert_close(found[1], found[0], rtol=1e-5, atol=1e-9)


def test_no_balance_loss_in_evaluation(routing, x):
    balanced, plain = adapted(balance_weight=5.0), adapted(balance_weight=0.0)
    expected = gradients(plain.train(), routing, x)
    torch.testing.assert_close(gradients(balanced.eval(), routing, x), expected, rtol=0, atol=0)
    assert not torch.equal(gradients(balanced.train(), routing, x)[-1], expected[-1])


def test_no_balance_loss_past_a_frozen_adapter(routing, x):
    found = []
    for weight in (5.0, 0.0):
        model = adapted(balance_weight=weight).train().requires_grad_(False)
        leaf = x.clone().requires_grad_()
        with use_routing(model, routing):
            found.append(torch.autograd.grad(model(leaf).square().sum(), leaf)[0])
    assert torch.equal(*found)


@pytest.mark.parametrize("merge", ["merge_adapter", "merge_and_unload"])
def test_no_weight_holds_it(merge):
    with pytest.raises(ValueError, match="cannot be merged: what it adds depends on the token"):
        getattr(adapted(), merge)()


@pytest.mark.parametrize(
    ("name", "value", "expected"),
    [
        ("num_experts", 0, "an integer > 0 or None, got 0"),
        ("balance_weight", -0.1, "a finite number >= 0, got -0.1"),
        ("balance_weight", float("nan"), "a finite number >= 0, got nan"),
        ("balance_contrast", 1.0, r"a number in \[0, 1\), got 1.0"),
    ],
)
def test_wrong_settings(name, value, expected):
    with pytest.raises(ValueError, match=f"`{name}`: expected {expected}"):
        LoraMoeConfig(**{name: value})
