"""Which rank reads which sample at which step."""

from itertools import chain

import numpy as np
import pytest
import torch.distributed as dist
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.testing._internal.distributed.fake_pg import FakeStore

from moka_peft.data import Sample
from moka_peft.data.epochs import EpochBatches, EpochLoader, EpochPlan, WithoutLoss

LENGTHS = np.random.default_rng(0).integers(20, 400, 500)


def drawn(plan: EpochPlan, epoch: int = 0) -> list[list[list[int]]]:
    return [plan.batches(epoch, rank) for rank in range(plan.ranks)]


def real(batches: list[list[int]]) -> list[int]:
    return [i for i in chain.from_iterable(batches) if i >= 0]


@settings(max_examples=60, deadline=None)
@given(
    sizes=st.lists(st.integers(1, 40), min_size=1, max_size=8),
    batch_size=st.integers(1, 5),
    ranks=st.integers(1, 9),
    block=st.integers(1, 16),
    kind=st.sampled_from(["plain", "lengths", "packed"]),
    epoch=st.integers(0, 3),
)
def test_every_sample_comes_once_and_all_ranks_have_as_many_batches(sizes, batch_size, ranks, block, kind, epoch):
    lengths = None if kind == "plain" else LENGTHS[: sum(sizes)]
    capacity = 500 if kind == "packed" else None
    plan = EpochPlan(tuple(sizes), batch_size, ranks, 3, block, lengths, capacity)
    batches = drawn(plan, epoch)
    assert sorted(chain.from_iterable(map(real, batches))) == list(range(sum(sizes)))
    assert {len(of_rank) for of_rank in batches} == {plan.steps}
    assert all(len(batch) == 1 for of_rank in batches for batch in of_rank if batch[0] < 0)
    assert all(i < 0 for of_rank in batches for batch in of_rank for i in batch if batch[0] < 0)


def test_epochs_differ_and_repeat_themselves():
    plan = EpochPlan((100, 60), 4, 3, seed=5, block=8)
    assert drawn(plan, 1) == drawn(EpochPlan((100, 60), 4, 3, seed=5, block=8), 1)
    assert drawn(plan, 1) != drawn(plan, 2)
    assert drawn(plan, 1) != drawn(EpochPlan((100, 60), 4, 3, seed=6, block=8), 1)


def test_the_same_samples_make_a_step_on_any_number_of_ranks():
    one, two = (drawn(EpochPlan((97,), 8 // ranks, ranks)) for ranks in (1, 2))
    steps = [sorted(chain(*step)) for step in zip(*two, strict=True)][:-1]
    assert steps == [sorted(batch) for batch in one[0]][:-1]


def test_neighbours_are_read_by_the_same_rank():
    plan = EpochPlan((2048, 2048), 4, ranks=4, block=16)
    for of_rank in drawn(plan):
        samples = sorted(real(of_rank))
        starts = sum(b != a + 1 for a, b in zip(samples[:-1], samples[1:], strict=True)) + 1
        assert starts <= len(samples) / 16


def test_ranks_get_as_many_tokens_where_lengths_are_known():
    rng = np.random.default_rng(1)
    lengths = np.concatenate([rng.lognormal(mean, 0.6, 1600).clip(20, 8192) for mean in (5, 6.5, 8)]).astype(int)
    plan = EpochPlan((1600, 1600, 1600), 4, ranks=24, block=32, lengths=lengths)
    tokens = np.array([lengths[real(batches)].sum() for batches in drawn(plan)])
    assert np.abs(tokens / tokens.mean() - 1).max() < 0.05
    without = EpochPlan((1600, 1600, 1600), 4, ranks=24, block=32)
    tokens = np.array([lengths[real(batches)].sum() for batches in drawn(without)])
    assert np.abs(tokens / tokens.mean() - 1).max() > 0.05


def test_batches_hold_samples_of_similar_length_at_the_same_step_of_all_ranks():
    plan = EpochPlan((500,), 5, ranks=2, lengths=LENGTHS)
    spreads = [np.ptp(LENGTHS[batch]) for of_rank in drawn(plan) for batch in of_rank]
    assert np.median(spreads) < 20 < np.ptp(LENGTHS) / 10
    sums = np.array([[LENGTHS[batch].sum() for batch in of_rank] for of_rank in drawn(plan)])
    assert np.median(sums.max(0) / sums.mean(0)) < 1.05


def test_packed_batches_fill_rows():
    plan = EpochPlan((500,), 2, ranks=3, lengths=LENGTHS, capacity=1000)
    tokens = [LENGTHS[batch].sum() for of_rank in drawn(plan) for batch in of_rank if batch[0] >= 0]
    assert max(tokens) <= 2000
    assert np.mean(tokens) > 0.9 * 2000
    with pytest.raises(ValueError, match="expected 500, one per sample, got 499"):
        EpochPlan((500,), 2, lengths=LENGTHS[:-1])


def test_data_without_samples_are_refused():
    with pytest.raises(ValueError, match="expected at least 1 sample, got 0"):
        EpochPlan((0,), 2)


def test_the_rank_is_that_of_the_process_group():
    plan = EpochPlan((333,), 2, ranks=8)
    seen = []
    for rank in range(8):
        dist.init_process_group("fake", rank=rank, world_size=8, store=FakeStore())
        try:
            seen += real(list(EpochBatches(plan)))
        finally:
            dist.destroy_process_group()
    assert sorted(seen) == list(range(333))


def test_a_loader_draws_the_epoch_it_is_told_and_marks_samples_without_loss():
    messages = [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Ho"}]
    samples = [Sample(str(i), messages) for i in range(5)]
    plan = EpochPlan((5,), 2, ranks=3)
    seen = {}
    for epoch in (0, 1):
        for rank in range(3):
            loader = EpochLoader(WithoutLoss(samples), batch_sampler=EpochBatches(plan, rank), collate_fn=list)
            loader.set_epoch(epoch)
            seen[epoch, rank] = list(loader)
            assert len(loader) == 1
    assert [s.id for r in range(3) for s in seen[0, r][0]] != [s.id for r in range(3) for s in seen[1, r][0]]
    plan = EpochPlan((3,), 1, ranks=2)
    loader = EpochLoader(WithoutLoss(samples[:3]), batch_sampler=EpochBatches(plan, 1), collate_fn=list)
    (first,), (dummy,) = list(loader)
    assert [message.get("loss", True) for message in dummy.messages] == [False, False]
    assert [message.get("loss", True) for message in first.messages] == [True, True]
