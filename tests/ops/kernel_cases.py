"""Every Triton kernel against the same equations in float64: run by test_triton.py and test_triton_gpu.py.

The oracle is torch in float64 with autograd. A kernel may be off by FACTOR times as much as torch is with the same
equations, or half an ulp of the largest value, at the dtype under test.
"""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Sequence

import pytest
import torch
from torch import Tensor

from moka_peft.ops import eager, moka_delta
from moka_peft.ops import triton as kernels
from moka_peft.ops.dropout import Dropout
from moka_peft.ops.triton.agreement import disagreement
from moka_peft.routing import Routing, plan
from moka_peft.routing.blocks import Blocks
from moka_peft.routing.plan import Plan

DEVICE = "cpu" if os.environ.get("TRITON_INTERPRET") == "1" else "cuda"
FACTOR = 4
DTYPES = (torch.float32, torch.bfloat16, torch.float16)
LAM = (0.0, 0.7, 1.3)


def plan_of(letters: str) -> Plan:
    """One letter per row: "." padding, otherwise the modality."""
    modality = torch.tensor([[-1 if letter == "." else int(letter) for letter in letters]], device=DEVICE)
    return plan.plan_of(Routing(modality, torch.zeros_like(modality)), 3)


def noise(*shape: int, dtype: torch.dtype, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed + sum(shape))
    return torch.randn(*shape, generator=generator).to(DEVICE, dtype)


def check(actual: Tensor, equations: Callable[..., Tensor], *inputs: Tensor) -> None:
    """`actual` against equations(inputs) in float64, in units of what torch loses at the inputs' dtype."""
    exact = equations(*(tensor.double() for tensor in inputs))
    assert actual.shape == exact.shape
    if exact.numel() == 0:
        return
    off = (equations(*inputs).double() - exact).abs().max()
    ulp = torch.finfo(inputs[0].dtype).eps / 2 * exact.abs().max()
    assert (actual.double() - exact).abs().max() <= FACTOR * torch.maximum(off, ulp)


def projected(x: Tensor, plan: Plan, *A: Tensor) -> Tensor:
    every = torch.stack([x @ one.T for one in A])  # [M, T, r]
    own = plan.modality.clamp(min=0).view(1, -1, 1).expand(1, -1, every.shape[2])
    return every.gather(0, own)[0].masked_fill((plan.modality < 0).unsqueeze(1), 0)


def with_added(plan: Plan) -> Callable[..., Tensor]:
    """dx plus dz A, each row with its own A."""
    own = [(plan.modality == m).unsqueeze(1) for m in range(3)]
    return lambda dx, dz, *A: dx + sum((dz * mine) @ one for mine, one in zip(own, A, strict=True))


LAYOUTS = ("0", "1", "0001112220", "..00.2.22.10", "." * 3 + "2" * 70 + "0" * 5, "....", "0" * 33 + "1" * 32 + "2" * 31)
SHAPES = [(rank, width, torch.float32) for rank, width in ((1, 5), (3, 64), (16, 130), (20, 64), (64, 200))]
SHAPES += [(3, 150, torch.bfloat16), (20, 150, torch.float16), (128, 200, torch.bfloat16)]


@pytest.mark.parametrize("layout", LAYOUTS, ids=lambda layout: f"{len(layout)}{layout[0]}")
@pytest.mark.parametrize(("rank", "width", "dtype"), SHAPES)
def test_project(layout: str, rank: int, width: int, dtype: torch.dtype):
    plan, x = plan_of(layout), noise(len(layout), width, dtype=dtype)
    A = [noise(rank, width, dtype=dtype, seed=m) for m in range(3)]
    z = kernels.project(x, A, plan, None)
    check(z, lambda x, *A: projected(x, plan, *A), x, *A)
    assert z.dtype == dtype and not z[plan.modality < 0].any()


@pytest.mark.parametrize("layout", LAYOUTS, ids=lambda layout: f"{len(layout)}{layout[0]}")
@pytest.mark.parametrize(("rank", "width", "dtype"), SHAPES)
def test_project_backward(layout: str, rank: int, width: int, dtype: torch.dtype):
    plan, x = plan_of(layout), noise(len(layout), width, dtype=dtype)
    A = [noise(rank, width, dtype=dtype, seed=m) for m in range(3)]
    dz, dx = noise(len(layout), rank, dtype=dtype, seed=7), noise(len(layout), width, dtype=dtype, seed=8)
    into = dx.clone()
    dA = kernels.project_backward(into, dz, x, A, plan, None)
    check(into, with_added(plan), dx, dz, *A)
    for m, gradient in enumerate(dA):
        own = (plan.modality == m).unsqueeze(1)
        check(gradient, lambda x, dz, own=own: (dz * own).T @ x, x, dz)
        assert gradient.dtype == torch.float32
    assert torch.equal(into[plan.modality < 0], dx[plan.modality < 0])


def test_a_wide_layer_with_few_rows_is_shared_out_by_columns():
    plan, x = plan_of("00."), noise(3, 2200, dtype=torch.float32)
    A = [noise(4, 2200, dtype=torch.float32, seed=m) for m in range(3)]
    z = kernels.project(x, A, plan, None)
    check(z, lambda x, *A: projected(x, plan, *A), x, *A)
    assert not z[2].any()


def test_what_needs_no_gradient_of_x_gets_none():
    plan, x = plan_of("0110"), noise(4, 40, dtype=torch.float32)
    A, dz = noise(2, 3, 40, dtype=torch.float32), noise(4, 3, dtype=torch.float32)
    with_dx = kernels.project_backward(x.clone(), dz, x, A, plan, None)
    for one, other in zip(kernels.project_backward(None, dz, x, A, plan, None), with_dx, strict=True):
        assert torch.equal(one, other)


def test_rows_that_lie_apart_and_float32_adapters_on_a_bfloat16_model():
    plan = plan_of("0110.2" * 8)
    wide = noise(48, 200, dtype=torch.bfloat16)
    x, dx = wide[:, 20:150], noise(130, 48, dtype=torch.bfloat16).T
    A, dz = [noise(5, 130, dtype=torch.float32, seed=m) for m in range(3)], noise(48, 5, dtype=torch.float32)
    z, into = kernels.project(x, A, plan, None), dx.clone(memory_format=torch.preserve_format)
    assert into.stride(1) != 1
    dA = kernels.project_backward(into, dz, x, A, plan, None)
    low = [a.bfloat16() for a in A]
    check(z, lambda x, *A: projected(x, plan, *A), x, *low)
    text = (plan.modality == 0).unsqueeze(1)
    check(dA[0], lambda x, dz: (dz * text).T @ x, x, dz.bfloat16())
    assert dA[0].dtype == torch.float32
    check(into, with_added(plan), dx, dz.bfloat16(), *low)


def test_dropout_draws_one_mask_for_forward_and_backward():
    plan, dropout, width = plan_of("00.1" * 20), Dropout(0.3, 2**40 + 5), 150
    x, A = noise(80, width, dtype=torch.float32), [noise(4, width, dtype=torch.float32, seed=m) for m in range(3)]
    dz, ones = noise(80, 4, dtype=torch.float32), [torch.ones(1, width, device=DEVICE)] * 3
    mask = torch.zeros_like(x)
    kernels.project_backward(mask, torch.ones(80, 1, device=DEVICE), x, ones, plan, dropout)
    real = plan.modality >= 0
    assert set(mask[real].unique().tolist()) == {0.0, 1.0} and not mask[~real].any()
    assert abs(mask[real].mean().item() - 0.7) < 4 * math.sqrt(0.21 / mask[real].numel())
    check(kernels.project(x, A, plan, dropout), lambda x, *A: projected(x * mask, plan, *A), x, *A)
    dx = torch.zeros_like(x)
    dA = kernels.project_backward(dx, dz, x, A, plan, dropout)
    text = (plan.modality == 0).unsqueeze(1)
    check(dA[0], lambda x, dz: (dz * text).T @ (x * mask), x, dz)
    check(dx[plan.modality == 1], lambda dz, a: ((dz @ a) * mask)[plan.modality == 1], dz, A[1])


def test_a_mask_depends_on_the_seed_and_the_element_alone():
    plan, width = plan_of("0" * 40), 130
    ones, x = [torch.ones(1, width, device=DEVICE)], noise(40, width, dtype=torch.float32)

    def mask(rows: slice, seed: int, dtype: torch.dtype = torch.float32) -> Tensor:
        one = plan_of("." * rows.start + "0" * (rows.stop - rows.start) + "." * (40 - rows.stop))
        into = torch.zeros(40, width, dtype=dtype, device=DEVICE)
        kernels.project_backward(into, torch.ones(40, 1, device=DEVICE), x.to(dtype), ones, one, Dropout(0.5, seed))
        return into.float()

    whole = mask(slice(0, 40), 1)
    assert torch.equal(whole[7:31], mask(slice(7, 31), 1)[7:31])
    assert torch.equal(whole, mask(slice(0, 40), 1, torch.bfloat16))  # another width of tile
    shared = (whole == mask(slice(0, 40), 2)).float().mean().item()
    assert abs(shared - 0.5) < 4 * 0.5 / math.sqrt(40 * width)
    rows_agree = (whole[1:] == whole[:-1]).float().mean().item()
    columns_agree = (whole[:, 1:] == whole[:, :-1]).float().mean().item()
    assert max(abs(rows_agree - 0.5), abs(columns_agree - 0.5)) < 4 * 0.5 / math.sqrt(39 * 129)
    assert plan.bounds[-1] == 40


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(
    ("tokens", "rank", "width"), [(1, 1, 1), (1, 16, 300), (70, 3, 64), (70, 20, 150), (65, 64, 100), (0, 4, 8)]
)
def test_expand(tokens: int, rank: int, width: int, dtype: torch.dtype):
    y, g = noise(tokens, width, dtype=dtype), noise(tokens, width, dtype=dtype, seed=1)
    u, B = noise(tokens, rank, dtype=dtype, seed=2), noise(width, rank, dtype=dtype, seed=3)
    into = y.clone()
    assert kernels.expand_(into, u, B, 0.3) is None
    check(into, lambda y, u, B: y + 0.3 * (u @ B.T), y, u, B)
    du, dB = kernels.expand_backward(g, u, B, 0.3)
    check(du, lambda g, B: 0.3 * (g @ B), g, B)
    check(dB, lambda g, u: 0.3 * (g.T @ u), g, u)
    assert du.dtype == dB.dtype == torch.float32


def test_expand_into_rows_that_lie_apart_with_float32_beside_bfloat16():
    y, wide = noise(40, 33, dtype=torch.bfloat16), noise(40, 99, dtype=torch.bfloat16)
    u, B = noise(40, 6, dtype=torch.float32, seed=2), noise(33, 6, dtype=torch.float32, seed=3)
    for into in (y.T.contiguous().T, wide[:, 7:40]):
        before = into.clone()
        kernels.expand_(into, u, B, 2.0)
        check(into, lambda y, u, B: y + 2.0 * (u @ B.T), before, u.bfloat16(), B.bfloat16())
    du, dB = kernels.expand_backward(wide[:, 7:40], u, B, 2.0)
    check(du, lambda g, B: 2.0 * (g @ B), wide[:, 7:40], B.bfloat16())
    assert du.dtype == dB.dtype == torch.float32


Chunk = tuple[Sequence[int], Sequence[int], int]  # rows of queries, rows of keys, the modality whose lambda counts


def blocks_of(chunks: Sequence[Chunk], holes: Sequence[int] | None = None) -> Blocks:
    """One bucket: short chunks repeat their last row with weight 0, short keys are filled with row 0."""
    queries, keys = max(len(chunk[0]) for chunk in chunks), max(len(chunk[1]) for chunk in chunks)
    filler = [(queries - len(chunk[0]), keys - len(chunk[1])) for chunk in chunks]
    query = [[*chunk[0], *[chunk[0][-1]] * more] for chunk, (more, _) in zip(chunks, filler, strict=True)]
    weight = [[1.0] * len(chunk[0]) + [0.0] * more for chunk, (more, _) in zip(chunks, filler, strict=True)]
    weight = torch.tensor(weight) * torch.tensor([[LAM[chunk[2]]] for chunk in chunks])
    key = [[*chunk[1], *[0] * more] for chunk, (_, more) in zip(chunks, filler, strict=True)]
    bias = [[0.0] * len(chunk[1]) + [-math.inf] * more for chunk, (_, more) in zip(chunks, filler, strict=True)]
    real_rows, slots = torch.tensor(query), weight.flatten().nonzero().squeeze(1)
    return Blocks(
        torch.tensor(query, device=DEVICE),
        weight.to(DEVICE),
        torch.tensor(key, device=DEVICE),
        torch.tensor(bias, device=DEVICE) if any(more for _, more in filler) else None,
        torch.tensor(holes, device=DEVICE, dtype=torch.float32).log() if holes else None,
        rows=real_rows.flatten()[slots].to(DEVICE),
        slots=slots.to(DEVICE),
        lam=weight.flatten()[slots].unsqueeze(1).to(DEVICE),
    )


def attended(z: Tensor, chunks: Sequence[Chunk], holes: Sequence[int] | None = None) -> Tensor:
    received = torch.zeros_like(z)
    for number, (queries, keys, modality) in enumerate(chunks):
        q, k = z[list(queries)], z[[*keys]]
        k = torch.cat([k, k.new_zeros(holes[number] if holes else 0, z.shape[1])])
        if len(k):
            c = LAM[modality] * torch.softmax(q @ k.T / math.sqrt(z.shape[1]), -1) @ k
            received = received.index_add(0, torch.tensor(queries, device=DEVICE), c)
    return z + received


ATTENTIONS: dict[str, tuple[int, list[Chunk]]] = {
    "one key": (3, [((1, 2), (0,), 1)]),
    "two turns": (90, [(range(5, 40), (1, 2, 3), 1), (range(50, 53), range(60, 85), 2)]),
    "chunks that share keys": (90, [(range(0, 30), range(80, 90), 2), (range(30, 47), range(80, 90), 2)]),
    "more keys than a tile": (210, [(range(200, 206), range(0, 200), 1)]),
    "text queries": (60, [((0, 3, 4), range(10, 30), 1), ((0, 3, 4), range(30, 59), 2), ((5,), (7, 9), 1)]),
    "a chunk without keys": (30, [((1, 2), (), 1), ((3,), (0, 5), 2)]),
}


@pytest.mark.parametrize("rank", [1, 3, 16, 20, 64])
@pytest.mark.parametrize("name", ATTENTIONS)
def test_attend(name: str, rank: int):
    tokens, chunks = ATTENTIONS[name]
    z, du = noise(tokens, rank, dtype=torch.float32), noise(tokens, rank, dtype=torch.float32, seed=1)
    against_torch(z, du, chunks, None)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_attend_with_zero_keys(dtype: torch.dtype):
    chunks, holes = [(range(5, 40), (1, 2, 3), 1), (range(50, 53), (60, 62), 2), (range(70, 73), (61,), 2)], [4, 0, 1]
    z, du = noise(90, 6, dtype=dtype), noise(90, 6, dtype=dtype, seed=1)
    against_torch(z.float() if dtype == torch.float32 else z, du, chunks, holes)


def test_large_scores_do_not_overflow():
    z, du = 40 * noise(30, 16, dtype=torch.float32), noise(30, 16, dtype=torch.float32, seed=1)
    against_torch(z, du, [(range(5, 30), range(0, 4), 2)], None)


def test_without_chunks_nothing_is_received():
    z, du = noise(9, 4, dtype=torch.float32), noise(9, 4, dtype=torch.float32, seed=1)
    u, state = kernels.attend(z, ())
    assert torch.equal(u, z) and u.data_ptr() != z.data_ptr()
    assert torch.equal(kernels.attend_backward(z, du, (), state), du)


def against_torch(z: Tensor, du: Tensor, chunks: list[Chunk], holes: list[int] | None) -> None:
    buckets = (blocks_of(chunks, holes),)
    before = z.clone(), du.clone()
    u, state = kernels.attend(z, buckets)
    dz = kernels.attend_backward(z, du, buckets, state)
    assert torch.equal(z, before[0]) and torch.equal(du, before[1])
    assert u.dtype == dz.dtype == torch.float32

    def backward(z: Tensor, du: Tensor) -> Tensor:
        z = z.detach().requires_grad_()
        return torch.autograd.grad(attended(z, chunks, holes), z, du)[0]

    check(u, lambda z: attended(z, chunks, holes), z.float())
    check(dz, backward, z.float(), du.float())


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("rank", [4, 20])
def test_the_comparison_at_first_use_finds_them_right(dtype: torch.dtype, rank: int):
    assert disagreement(torch.device(DEVICE), dtype, rank) is None


@pytest.mark.parametrize("name", sorted(kernels.__all__))
def test_the_comparison_at_first_use_finds_a_wrong_one(name: str, monkeypatch: pytest.MonkeyPatch):
    right = getattr(kernels, name)

    def wrong(*arguments):
        result = right(*arguments)
        tensor = arguments[0] if result is None else result[0] if isinstance(result, (tuple, list)) else result
        tensor.mul_(1.001)
        return result

    monkeypatch.setattr(kernels, name, wrong)
    assert "is off by" in (disagreement(torch.device(DEVICE), torch.float32, 4) or "")


LAYOUT = ("..0001111000222200", "000111100222000...")
TURNS = ("000001111220222200", "000111111222011000")
OPTIONS = [
    {"interaction": "cross_attention"},
    {"interaction": "cross_attention", "instruction_span": "contiguous", "scale_before_attention": True},
    {"interaction": "text_query"},
    {"interaction": "mean"},
    {"interaction": "none"},
]


@pytest.mark.parametrize("options", OPTIONS, ids=lambda options: "-".join(map(str, options.values())))
def test_moka_delta_equals_the_reference(options: dict):
    modality = torch.tensor([[-1 if letter == "." else int(letter) for letter in row] for row in LAYOUT])
    routing = Routing(modality.to(DEVICE), torch.tensor([[int(letter) for letter in row] for row in TURNS]).to(DEVICE))
    tensors = [noise(2, 18, 40, dtype=torch.float32), noise(3, 5, 40, dtype=torch.float32)]
    tensors += [noise(33, 5, dtype=torch.float32, seed=1), noise(2, 18, 33, dtype=torch.float32, seed=2)]

    def with_gradients(impl: str, dtype: torch.dtype) -> list[Tensor]:
        *leaves, g = (tensor.to(dtype).requires_grad_() for tensor in tensors)
        y = moka_delta(*leaves, routing, scaling=0.5, cross_scale=(0.7, 1.3), impl=impl, **options)
        return [y, *torch.autograd.grad(y, leaves, g)]

    got, off = with_gradients("triton", torch.float32), with_gradients("eager", torch.float32)
    for one, same, exact in zip(got, off, with_gradients("reference", torch.float64), strict=True):
        limit = torch.maximum((same - exact).abs().max(), torch.finfo(torch.float32).eps / 2 * exact.abs().max())
        assert (one - exact).abs().max() <= FACTOR * limit


def test_deterministic_algorithms_are_torch_s():
    z, du = noise(90, 5, dtype=torch.float32), noise(90, 5, dtype=torch.float32, seed=1)
    buckets = (blocks_of(ATTENTIONS["two turns"][1]),)
    torch.use_deterministic_algorithms(True)
    try:
        u, state = kernels.attend(z, buckets)
        assert state is not None and torch.equal(u, eager.attend(z, buckets)[0])
        dz = kernels.attend_backward(z, du, buckets, state)
        assert torch.equal(dz, eager.attend_backward(z, du, buckets, state))
    finally:
        torch.use_deterministic_algorithms(False)
