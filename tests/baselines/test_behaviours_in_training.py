"""How every method trains: who gets a gradient, what recomputation and other dtypes change, and what settings mean."""

import pytest
import torch
from peft import get_peft_model

from moka_peft.training.methods import PEFTS_OWN

from .adapting import METHODS, OneLinear, adapt, adapted_layers, adapter_weights, config_of, logits_of, randomise

NEEDS_ALL_MODALITIES = ("vvxyzq", "xavwqz")


@pytest.fixture
def ids(chat):
    return torch.cat([chat(turn, "pp") for turn in NEEDS_ALL_MODALITIES])


@pytest.fixture(params=METHODS)
def method(request):
    return request.param


@pytest.fixture
def adapted(tiny_lm, spec, method):
    """adapted(**settings) -> a model in training mode with the method's adapter, random and large."""
    return lambda **settings: adapt(tiny_lm(), method, spec, **settings).train()


def gradients(model, *batches):
    """Of the adapter, from one backward through a forward of each batch."""
    model.zero_grad()
    sum(model(ids).logits.float().square().mean() for ids in batches).backward()
    return {name: weight.grad for name, weight in adapter_weights(model)}


def error(got, expected):
    return ((got.double() - expected.double()).norm() / expected.double().norm()).item()


def test_the_adapter_alone_trains(adapted):
    model = adapted()
    trained = {name for name, weight in model.named_parameters() if weight.requires_grad}
    assert trained == dict(adapter_weights(model)).keys()


def test_every_weight_gets_a_gradient(adapted, ids):
    for name, gradient in gradients(adapted(), ids).items():
        assert gradient is not None and (gradient != 0).any(), name


def test_what_a_batch_has_no_use_for_gets_zeros_not_none(adapted, chat):
    """Processes that train together wait for the gradient of every weight."""
    for name, gradient in gradients(adapted(), chat("xyz", "pp")).items():
        assert gradient is not None and torch.isfinite(gradient).all(), name


def test_only_the_second_matrix_moves_at_first(tiny_lm, spec, method, ids):
    """B is zero: all that comes before it has no gradient of the task yet."""
    model = get_peft_model(tiny_lm(), config_of(method, spec, balance_weight=0.0)).train()
    found = gradients(model, ids)
    assert all((gradient != 0).any() for name, gradient in found.items() if "_B" in name)


@pytest.mark.parametrize("use_reentrant", [True, False])
def test_checkpointing_changes_no_gradient(adapted, chat, use_reentrant):
    batches = [chat(turn, "pp") for turn in NEEDS_ALL_MODALITIES]  # same shapes, other routing
    expected = {name: gradient.clone() for name, gradient in gradients(adapted(), *batches).items()}
    model = adapted()
    base = model.get_base_model()
    enable = getattr(base, "activation_checkpointing_enable", base.gradient_checkpointing_enable)
    enable({"use_reentrant": use_reentrant})
    model.enable_input_require_grads()
    for name, gradient in gradients(model, *batches).items():
        torch.testing.assert_close(gradient, expected[name], rtol=1e-5, atol=1e-6)


def test_ranks_and_scales_by_layer(adapted):
    model = adapted(rank_pattern={"q_proj": 2}, alpha_pattern={"layers.1.mlp.down_proj": 30})
    layers = model.base_model.model.model.layers
    assert layers[0].self_attn.q_proj.r["default"] == 2 and layers[0].self_attn.v_proj.r["default"] == 3
    assert layers[1].mlp.down_proj.scaling["default"] == 10 and layers[0].mlp.down_proj.scaling["default"] == 2
    sizes = {weight.shape for name, weight in adapter_weights(model) if ".q_proj." in name and ("_A" in name)}
    assert sizes == {torch.Size([2, 32])}


def test_rslora_divides_by_the_root_of_the_rank(adapted, ids):
    model, plain = adapted(use_rslora=True), adapted()
    assert {layer.scaling["default"] for layer in adapted_layers(model)} == {6 / 3**0.5}
    assert not torch.equal(logits_of(model, ids), logits_of(plain, ids))


def test_dropout_changes_training_only(adapted, ids):
    model = adapted(lora_dropout=0.5)
    assert not torch.equal(logits_of(model, ids), logits_of(model, ids))
    plain = adapted().eval()
    assert torch.equal(logits_of(model.eval(), ids), logits_of(plain, ids))


@pytest.fixture
def one_linear(spec, method):
    """one_linear(dtype) -> a single adapted Linear, without the loss that some methods have of their own."""

    def build(dtype=torch.float32, **settings):
        quiet = {"balance_weight": 0.0, "decoupling_weight": 0.0, "alignment_weight": 0.0, "shared_growth": 0.0}
        return adapt(OneLinear().to(dtype), method, spec, target_modules=["q_proj"], **quiet, **settings).train()

    return build


def pull(output):
    """Whole numbers of both signs, exact in every dtype."""
    return (torch.arange(output.numel()) % 7 - 3).view(output.shape).to(output.dtype)


def outcome(model, ids):
    """What the model gives and the gradients of its adapter, by name."""
    model.zero_grad()
    output = model(ids)
    (output * pull(output)).sum().backward()
    return {"output": output.detach(), **{name: weight.grad.clone() for name, weight in adapter_weights(model)}}


FACTORS = {torch.bfloat16: 8, torch.float32: 32}  # found: 6.7 and 22, both in what routers are told
"""How many times the error of rounding the exact result to a dtype: A, the router, B and the sum each round once."""


def check_near_float64(found, exact, dtype):
    for name, expected in exact.items():
        floor = error(expected.to(dtype), expected)
        assert error(found[name], expected) < FACTORS[dtype] * floor, name


def test_narrow_weights_of_the_base(one_linear, ids):
    """PEFT keeps the adapter's own in float32."""
    model = one_linear(torch.bfloat16)
    assert {weight.dtype for _, weight in adapter_weights(model)} == {torch.float32}
    found = outcome(model, ids)
    assert found["output"].dtype == torch.bfloat16
    check_near_float64(found, outcome(model.double(), ids), torch.bfloat16)


def test_autocast(one_linear, ids):
    model = one_linear()
    with torch.autocast("cpu", torch.bfloat16):
        found = outcome(model, ids)
    assert {value.dtype for name, value in found.items() if name != "output"} == {torch.float32}
    check_near_float64(found, outcome(model.double(), ids), torch.bfloat16)


@pytest.mark.parametrize("ours", ["lora_moe", "imod"])
@pytest.mark.parametrize("autocast", [False, True])
def test_a_loss_of_the_methods_own_is_told_in_half_precision(tiny_lm, spec, ours, ids, autocast):
    base = tiny_lm() if autocast else tiny_lm().to(torch.bfloat16)
    model = adapt(base, ours, spec, balance_weight=50.0, decoupling_weight=50.0).train()
    with torch.autocast("cpu", torch.bfloat16, enabled=autocast):
        found = gradients(model, ids)
    exact = gradients(model.double(), ids)
    for name, gradient in found.items():
        if "router" in name or ours == "imod" and "_A" in name:
            assert error(gradient, exact[name]) < 0.2, name


def test_single_precision_is_near_double(one_linear, ids):
    model = one_linear()
    check_near_float64(outcome(model, ids), outcome(model.double(), ids), torch.float32)


def test_gradients_are_those_of_differences(one_linear, ids, method):
    """In float64 throughout: a step of 1e-6 would not survive a float32 on the way."""
    if method == "dora":
        pytest.skip("by its design no gradient passes the norm it divides by")
    model = one_linear().double()
    names, weights = zip(*adapter_weights(model), strict=True)

    def run(*values):
        return torch.func.functional_call(model, dict(zip(names, values, strict=True)), (ids,))

    assert torch.autograd.gradcheck(run, weights, fast_mode=True)


def test_compiled_it_trains_the_same(one_linear, ids, method):
    if method in PEFTS_OWN:
        pytest.skip("PEFT's own")
    torch.compiler.reset()
    model = one_linear().double()
    expected = outcome(model, ids)
    compiled = torch.compile(model, backend="eager", fullgraph=True)
    model.zero_grad()
    output = compiled(ids)
    (output * pull(output)).sum().backward()
    torch.compiler.reset()
    for name, weight in adapter_weights(model):
        torch.testing.assert_close(weight.grad, expected[name], rtol=1e-10, atol=1e-12)


def test_one_step_is_that_of_a_twin(adapted, ids):
    """Training is repeatable: nothing but the seed decides it."""
    found = []
    for _ in range(2):
        torch.manual_seed(3)
        model = adapted(lora_dropout=0.3)
        optimizer = torch.optim.AdamW([weight for _, weight in adapter_weights(model)], lr=0.01)
        for _ in range(2):
            gradients(model, ids)
            optimizer.step()
        found.append(logits_of(model.eval(), ids))
    assert torch.equal(*found)


def test_frozen_it_keeps_no_gradient_and_answers_the_same(adapted, ids):
    model = adapted()
    expected = logits_of(model.eval(), ids)
    model.requires_grad_(False)
    assert torch.equal(model(ids).logits, expected) and not model(ids).logits.requires_grad


def test_randomised_weights_are_all_of_them(adapted, tiny_lm, spec, method):
    """What the matrix rests on: no weight of an adapter is left where it began."""
    fresh = get_peft_model(tiny_lm(), config_of(method, spec))
    begun = {name: weight.clone() for name, weight in adapter_weights(fresh)}
    randomise(fresh)
    left = [name for name, weight in adapter_weights(fresh) if torch.equal(weight, begun[name])]
    assert all("magnitude" in name for name in left)
