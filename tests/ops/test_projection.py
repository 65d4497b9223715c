"""The routed projection: its three ways against each token's own matmul in float64, with dropout and without."""

import pytest
import torch

from moka_peft.ops import projection
from moka_peft.ops.dropout import Dropout, Mask
from moka_peft.ops.projection import choose_way, project, project_backward
from moka_peft.routing import Routing
from moka_peft.routing.plan import plan_of

WAYS = ("stacked", "runs", "sorted")


def inputs(tokens=40, width=6, rank=3, modalities=3, seed=0, low=-1):
    generator = torch.Generator().manual_seed(seed)
    modality = torch.randint(low, modalities, (2, tokens // 2), generator=generator)
    plan = plan_of(Routing(modality, torch.zeros_like(modality)), modalities)
    x, dz, dx = (torch.randn(tokens, n, generator=generator, dtype=torch.float64) for n in (width, rank, width))
    A = [torch.randn(rank, width, generator=generator, dtype=torch.float64) for _ in range(modalities)]
    return x, dz.masked_fill((plan.modality < 0).unsqueeze(1), 0), dx, A, plan


def by_token(x, dz, dx, A, plan, mask):
    z, dx, dA = torch.zeros_like(dz), dx.clone(), [torch.zeros_like(a) for a in A]
    for t, m in enumerate(plan.modality.tolist()):
        if m >= 0:
            z[t] = A[m] @ (mask[t] * x[t])
            dx[t] += mask[t] * (dz[t] @ A[m])
            dA[m] += torch.outer(dz[t], mask[t] * x[t])
    return z, dx, dA


@pytest.mark.parametrize("piece", [12, 60, 2**18])  # elements of x at a time
@pytest.mark.parametrize("low", [-1, 0])
@pytest.mark.parametrize("way", WAYS)
def test_every_way_is_each_tokens_own_matmul(way, low, piece, monkeypatch):
    monkeypatch.setattr(projection, "choose_way", lambda *_: way)
    monkeypatch.setattr(projection, "PIECE", piece)
    x, dz, dx, A, plan = inputs(low=low)
    z, expected_dx, expected_dA = by_token(x, dz, dx, A, plan, torch.ones_like(x))
    torch.testing.assert_close(project(x, A, plan, None), z, rtol=1e-12, atol=1e-12)
    dA = project_backward(dx, dz, x, A, plan, None)
    torch.testing.assert_close(dx, expected_dx, rtol=1e-12, atol=1e-12)
    for got, expected in zip(dA, expected_dA, strict=True):
        torch.testing.assert_close(got, expected, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("piece", [18, 2**18])
@pytest.mark.parametrize("way", WAYS)
def test_dropout_drops_the_same_of_x_forward_and_backward(way, piece, monkeypatch):
    """The mask that the forward used is read off it, with one column of A set at a time."""
    monkeypatch.setattr(projection, "choose_way", lambda *_: way)
    monkeypatch.setattr(projection, "PIECE", piece)
    x, dz, dx, A, plan = inputs()
    dropout = Dropout(0.5, seed=7)
    units = [torch.eye(x.shape[1], dtype=torch.float64)] * len(A)
    mask = (project(torch.ones_like(x), units, plan, dropout) != 0).double()
    real = plan.modality >= 0
    assert 0.3 < mask[real].mean() < 0.7
    z, expected_dx, expected_dA = by_token(x, dz, dx, A, plan, mask)
    torch.testing.assert_close(project(x, A, plan, dropout), z, rtol=1e-12, atol=1e-12)
    dA = project_backward(dx, dz, x, A, plan, dropout)
    torch.testing.assert_close(dx, expected_dx, rtol=1e-12, atol=1e-12)
    for got, expected in zip(dA, expected_dA, strict=True):
        torch.testing.assert_close(got, expected, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float64])
@pytest.mark.parametrize("p", [0.05, 0.5, 0.9])
def test_mask_keeps_the_right_share_independently(p, dtype):
    like = torch.empty(1000, 333, dtype=dtype)
    dropout = Dropout(p, seed=3)
    mask = Mask(dropout, like.device).next(like)
    assert mask.dtype == dtype and set(mask.unique().tolist()) <= {0.0, 1.0}
    kept, spread = mask.double().mean().item(), (p * (1 - p) / mask.numel()) ** 0.5
    assert abs(kept - (1 - p)) < 5 * spread
    for shift in (1, 2, 3, 4, 333):  # four elements come from one draw
        pair = (mask.double().flatten()[shift:] * mask.double().flatten()[:-shift]).mean().item()
        assert abs(pair - (1 - p) ** 2) < 10 * spread
    assert not torch.equal(mask, Mask(Dropout(p, seed=4), like.device).next(like))


def test_mask_scale_makes_up_for_what_is_dropped():
    torch.manual_seed(0)
    dropout = Dropout.draw(0.1)
    assert abs(dropout.p - 0.1) < 1 / 65536 and dropout.scale == 1 / (1 - dropout.p)
    assert Dropout.draw(0.1).seed != dropout.seed
    everything = Dropout.draw(1.0)
    like = torch.empty(8, 8)
    assert everything.scale == 0 and (Mask(everything, like.device).next(like) == 0).all()


def test_the_cheapest_way_depends_on_layout_and_rank():
    runs = torch.tensor([[0] * 200 + [1] * 400 + [2] * 200 + [0] * 224])
    mixed = torch.arange(1024).remainder(3).unsqueeze(0)
    for modality, rank, way in ((runs, 4, "stacked"), (runs, 64, "runs"), (mixed, 4, "stacked"), (mixed, 64, "sorted")):
        plan = plan_of(Routing(modality, torch.zeros_like(modality)), 3)
        assert choose_way(plan, torch.empty(1024, 1024), [torch.empty(rank, 1024)] * 3) == way
