"""Several sources as one: their samples, the order of an epoch, and the index of their lengths."""

import pickle
from itertools import accumulate, chain
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from moka_peft.composite import tiny_avt_processor
from moka_peft.data import AvDigits, load_samples
from moka_peft.data.epochs import EpochPlan
from moka_peft.data.generated import write_generated
from moka_peft.data.mixing import MixedSamples, block_of, part_sizes_of, shard_sizes_of
from moka_peft.data.token_index import read_index, write_index

LENGTHS = np.random.default_rng(0).integers(20, 400, 500)


@pytest.fixture
def mixed(tmp_path: Path) -> MixedSamples:
    write_generated("llava_instruct", tmp_path, samples=3)
    write_generated("audiocaps", tmp_path, samples=2)
    source = {"folder": str(tmp_path)}
    parts = [load_samples(source | {"name": name}) for name in ("llava_instruct", "audiocaps")]
    return MixedSamples([*parts, AvDigits(size=4)])


def test_samples_follow_each_other(mixed: MixedSamples):
    assert len(mixed) == 9 and part_sizes_of(mixed) == (3, 2, 4) and shard_sizes_of(mixed) == [3, 2, 4]
    assert mixed[2].id == "000000000002" and mixed[3].id == "audiocaps-0" and mixed[-1].id == "av_digits-train-0-3"
    assert [sample.id for sample in mixed[1:6:2]] == [mixed[i].id for i in (1, 3, 5)]
    assert [sample.id for sample in pickle.loads(pickle.dumps(mixed))] == [sample.id for sample in mixed]
    with pytest.raises(IndexError, match="`index` is out of range: expected below 9, got 9"):
        mixed[9]
    assert block_of(mixed) == 1 and part_sizes_of([1, 2]) == (2,)


def test_an_index_knows_its_sources(mixed: MixedSamples, tmp_path: Path):
    processor, path = tiny_avt_processor(), tmp_path / "index.npz"
    write_index(path, range(1, 10), mixed, processor)
    assert read_index(path, MixedSamples(mixed.parts), processor).tolist() == list(range(1, 10))
    for parts in (mixed.parts[::-1], [*mixed.parts[:2], AvDigits(size=4, seed=1)]):
        with pytest.raises(ValueError, match="expected the samples it was written for"):
            read_index(path, MixedSamples(parts), processor)
    captions = tmp_path / "dataset" / "train.csv"
    captions.write_text(captions.read_text().replace("quiet", "loud"))
    with pytest.raises(ValueError, match="expected the samples it was written for"):
        read_index(path, mixed, processor)
    single = load_samples({"name": "llava_instruct", "folder": str(tmp_path), "turns": "single"})
    assert single.origins != mixed.parts[0].origins  # type: ignore[attr-defined]


def real(batches: list[list[int]]) -> list[int]:
    return [i for i in chain.from_iterable(batches) if i >= 0]


@settings(max_examples=60, deadline=None)
@given(
    sizes=st.lists(st.lists(st.integers(1, 30), min_size=1, max_size=3), min_size=1, max_size=4),
    batch_size=st.integers(1, 5),
    ranks=st.integers(1, 5),
    block=st.integers(1, 16),
    kind=st.sampled_from(["plain", "lengths", "packed"]),
    epoch=st.integers(0, 2),
)
def test_stages_come_one_after_another_on_every_rank(sizes, batch_size, ranks, block, kind, epoch):
    shards, stages = tuple(chain.from_iterable(sizes)), tuple(map(sum, sizes))
    lengths = None if kind == "plain" else LENGTHS[: sum(shards)]
    capacity = 500 if kind == "packed" else None
    plan = EpochPlan(shards, batch_size, ranks, 3, block, lengths, capacity, stages)
    batches = [plan.batches(epoch, rank) for rank in range(ranks)]
    assert sorted(chain.from_iterable(map(real, batches))) == list(range(sum(shards)))
    assert {len(of_rank) for of_rank in batches} == {plan.steps}
    ends = np.array(list(accumulate(stages)))
    stage = [
        [{int(np.searchsorted(ends, i if i >= 0 else ~i, "right")) for i in batch} for batch in b] for b in batches
    ]
    for step in zip(*stage, strict=True):
        assert len(set().union(*step)) == 1, "a step holds samples of two stages"
    order = [min(step) for step in stage[0]]
    assert order == sorted(order)


def test_stages_hold_the_same_samples_on_any_number_of_ranks_and_shuffle_each_epoch():
    one, two = (
        [EpochPlan((40, 64), 8 // ranks, ranks, stages=(40, 64)).batches(0, rank) for rank in range(ranks)]
        for ranks in (1, 2)
    )
    steps = [sorted(chain(*step)) for step in zip(*two, strict=True)]
    assert steps == [sorted(batch) for batch in one[0]]
    plan = EpochPlan((40, 64), 8, stages=(40, 64))
    assert plan.batches(0, 0) != plan.batches(1, 0)
    assert sorted(chain(*plan.batches(1, 0)[:5])) == list(range(40))


def test_stages_that_cut_a_shard_are_refused():
    with pytest.raises(ValueError, match=r"`stages` fit other data: expected shards of \(4, 4\), got \(3, 5\)"):
        EpochPlan((4, 4), 2, stages=(3, 5))
