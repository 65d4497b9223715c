"""moka_delta: the eager form against the reference on random layouts, and the properties both must have."""

from dataclasses import dataclass

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from moka_peft.ops import INTERACTIONS, moka_delta
from moka_peft.ops.delta import add_residual
from moka_peft.routing import Routing


@dataclass
class Case:
    x: torch.Tensor
    A: torch.Tensor
    B: torch.Tensor
    routing: Routing
    options: dict


OPTIONS = [
    {"interaction": interaction, "instruction_span": span, "scale_before_attention": before}
    for interaction in INTERACTIONS
    for span in ("tokens", "contiguous")
    for before in (False, True)
    if (interaction, span) != ("text_query", "contiguous")
]


def make_case(batch, length, modalities, turns, options, seed, rank=3, dtype=torch.float64):
    generator = torch.Generator().manual_seed(seed)

    def normal(*shape):
        return torch.randn(*shape, generator=generator, dtype=torch.float64).to(dtype)

    modality = torch.randint(-1, modalities, (batch, length), generator=generator)
    modality[0, 0] = modality[0, 0].clamp(min=0)  # some real token
    turn = torch.randint(0, turns + 1, (batch, length), generator=generator).masked_fill(modality < 0, 0)
    scales = [0.3 + 0.2 * m for m in range(modalities - 1)]
    options = {"scaling": 1.7, "cross_scale": scales, **options}
    return Case(
        normal(batch, length, 5), normal(modalities, rank, 5), normal(4, rank), Routing(modality, turn), options
    )


def run(case, impl, weight=None):
    """Output and the gradients of a random weighting of it."""
    inputs = [t.detach().clone().requires_grad_() for t in (case.x, case.A, case.B)]
    y = moka_delta(*inputs, case.routing, impl=impl, **case.options)
    generator = torch.Generator().manual_seed(1)
    weight = torch.randn(y.shape, generator=generator, dtype=torch.float64).to(y.dtype) if weight is None else weight
    return [y.detach(), *torch.autograd.grad((y * weight).sum(), inputs, materialize_grads=True)]


@settings(max_examples=150, deadline=None)
@given(
    st.integers(1, 3),
    st.integers(1, 14),
    st.integers(2, 8),
    st.integers(0, 3),
    st.sampled_from(OPTIONS),
    st.integers(0, 2**20),
)
def test_eager_equals_reference(batch, length, modalities, turns, options, seed):
    case = make_case(batch, length, modalities, turns, options, seed)
    for got, expected in zip(run(case, "eager"), run(case, "reference"), strict=True):
        torch.testing.assert_close(got, expected, rtol=1e-10, atol=1e-10)


@settings(max_examples=40, deadline=None)
@given(st.integers(2, 4), st.integers(1, 10), st.sampled_from(OPTIONS), st.integers(0, 2**20))
def test_batch_equals_its_samples_alone(batch, length, options, seed):
    case = make_case(batch, length, 3, 2, options, seed)
    together = run(case, "eager")[0]
    for i in range(batch):
        routing = Routing(case.routing.modality[i : i + 1], case.routing.turn[i : i + 1])
        alone = moka_delta(case.x[i : i + 1], case.A, case.B, routing, **case.options)
        torch.testing.assert_close(alone[0], together[i], rtol=1e-10, atol=1e-10)


@settings(max_examples=40, deadline=None)
@given(st.integers(1, 4), st.sampled_from(OPTIONS), st.integers(0, 2**20))
def test_padding_side_does_not_matter(padding, options, seed):
    case = make_case(2, 7, 3, 2, options, seed)

    def padded(tensor, value, left):
        filler = torch.full((2, padding, *tensor.shape[2:]), value, dtype=tensor.dtype)
        return torch.cat([filler, tensor] if left else [tensor, filler], 1)

    outputs = []
    for left in (True, False):
        routing = Routing(padded(case.routing.modality, -1, left), padded(case.routing.turn, 0, left))
        y = moka_delta(padded(case.x, 9.0, left), case.A, case.B, routing, **case.options)
        outputs.append(y[:, padding:] if left else y[:, :-padding])
    torch.testing.assert_close(outputs[0], outputs[1], rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("options", OPTIONS)
@pytest.mark.parametrize("impl", ["eager", "reference"])
def test_padding_rows_are_exactly_zero(options, impl):
    case = make_case(3, 12, 3, 2, options, seed=3)
    y, grad_x, *_ = run(case, impl)
    padding = case.routing.modality == -1
    assert padding.any()
    assert (y[padding] == 0).all() and (grad_x[padding] == 0).all()


@pytest.mark.parametrize("options", OPTIONS)
def test_later_answers_change_nothing_else(options):
    """Text outside the instruction is never a key: its values reach no other token."""
    case = make_case(2, 14, 3, 2, options, seed=4)
    answer = (case.routing.modality == 0) & (case.routing.turn == 0)
    before = run(case, "eager")[0]
    case.x = torch.where(answer.unsqueeze(-1), case.x + 5, case.x)
    after = run(case, "eager")[0]
    assert answer.any() and not torch.equal(before[answer], after[answer])
    assert torch.equal(before[~answer], after[~answer])


@pytest.mark.parametrize("options", OPTIONS)
def test_flash_kernel_equals_reference(options, monkeypatch):
    """Which a CPU takes for long sequences."""
    monkeypatch.setattr("moka_peft.ops.attention.FLASH_FROM", 0)
    for seed in range(4):
        case = make_case(3, 14, 4, 3, options, seed)
        for got, expected in zip(run(case, "eager"), run(case, "reference"), strict=True):
            torch.testing.assert_close(got, expected, rtol=1e-10, atol=1e-10)


def test_float32_stays_near_float64():
    for options in OPTIONS:
        case64 = make_case(2, 14, 3, 2, options, seed=5)
        case32 = make_case(2, 14, 3, 2, options, seed=5, dtype=torch.float32)
        for impl in ("eager", "reference"):
            weight = torch.ones(1)
            for got, expected in zip(run(case32, impl, weight), run(case64, impl, weight.double()), strict=True):
                assert (got.double() - expected).abs().max() <= 2e-5 * max(1, expected.abs().max())


def test_absent_modality_gets_zero_gradient():
    case = make_case(2, 9, 3, 2, OPTIONS[0], seed=6)
    case.routing = Routing(case.routing.modality.clamp(max=1), case.routing.turn)
    gradient = run(case, "eager")[2]
    assert (gradient[2] == 0).all() and (gradient[1] != 0).any()


@pytest.mark.parametrize("options", OPTIONS)
def test_residual_is_the_delta_less_the_text_path(options):
    case = make_case(2, 12, 3, 2, options, seed=7)
    delta = moka_delta(case.x, case.A, case.B, case.routing, **case.options)
    text = 1.7 * case.x @ case.A[0].T @ case.B.T
    residual = add_residual(torch.zeros_like(delta), case.x, case.A, case.B, case.routing, **case.options)
    real = case.routing.modality >= 0
    torch.testing.assert_close((text + residual)[real], delta[real], rtol=1e-10, atol=1e-10)
    plain_text = (case.routing.modality == 0) & (case.routing.turn == 0)
    assert (residual[plain_text] == 0).all()


@pytest.mark.parametrize("options", OPTIONS)
@pytest.mark.parametrize("grad", [True, False])
def test_residual_counts_the_gaps_of_an_instruction(options, grad):
    """Instruction before and after the media: a merged layer must still see the positions between as zero keys."""
    case = make_case(2, 9, 3, 1, options, seed=11)
    modality = torch.tensor([[0, 0, 1, 1, 2, 0, 0, 0, -1], [0, 2, 0, 1, 0, 0, 0, 0, 0]])
    turn = torch.tensor([[0, 1, 1, 1, 1, 1, 1, 0, 0], [1, 1, 0, 1, 0, 0, 1, 0, 0]])
    case.routing = Routing(modality, turn)
    text = 1.7 * case.x @ case.A[0].T @ case.B.T
    with torch.set_grad_enabled(grad):
        merged = add_residual(text.clone(), case.x, case.A, case.B, case.routing, **case.options)
    delta = moka_delta(case.x, case.A, case.B, case.routing, impl="reference", **case.options)
    torch.testing.assert_close(merged[modality >= 0], delta[modality >= 0], rtol=1e-10, atol=1e-10)


def test_a_modality_that_the_adapter_does_not_have_is_named():
    case = make_case(1, 4, 4, 1, {"interaction": "none"}, seed=1)
    case.routing = Routing(torch.tensor([[0, 3, 1, 2]]), torch.zeros(1, 4, dtype=torch.long))
    case.options["cross_scale"] = 1.0
    with pytest.raises(ValueError, match=r"`routing` holds modality 3, but the adapter has 3 \(0 is text\)"):
        moka_delta(case.x, case.A[:3], case.B, case.routing, **case.options)


def test_bfloat16_runs_and_keeps_its_dtype():
    case = make_case(2, 9, 3, 2, OPTIONS[0], seed=8, dtype=torch.bfloat16)
    exact = run(make_case(2, 9, 3, 2, OPTIONS[0], seed=8), "reference")[0]
    y = run(case, "eager")[0]
    assert y.dtype == torch.bfloat16
    assert (y.double() - exact).norm() / exact.norm() < 2e-2


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"x": torch.zeros(0, 3, 5)}, r"`x`: expected \[batch, sequence, in_features\] with no empty dimension"),
        ({"A": torch.zeros(3, 2, 4)}, r"`A`: expected \[modalities, rank, 5\]"),
        ({"B": torch.zeros(4, 7)}, r"`B`: expected \[out_features, 3\]"),
        ({"routing": Routing(torch.zeros(1, 2, dtype=torch.long), torch.zeros(1, 2, dtype=torch.long))}, "`routing`"),
        ({"interaction": "attention"}, "`interaction`: expected one of cross_attention"),
        ({"instruction_span": "contiguous", "interaction": "text_query"}, "`instruction_span`"),
        ({"cross_scale": [1.0]}, "`cross_scale`: expected one number or 2"),
        ({"impl": "fast"}, "`impl`"),
    ],
)
def test_bad_input_is_named(change, message):
    case = make_case(2, 6, 3, 2, OPTIONS[0], seed=9)
    arguments = {"x": case.x, "A": case.A, "B": case.B, "routing": case.routing, **case.options, **change}
    with pytest.raises(ValueError, match=message):
        moka_delta(**arguments)
