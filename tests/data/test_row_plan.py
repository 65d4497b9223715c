"""Rows of packed samples: every sample once, no row too long, first-fit decreasing, fast."""

import random
import time

import numpy as np
import pytest

from moka_peft.data.row_plan import fill_rows, pack_rows


def first_fit_decreasing(lengths, capacity):
    """The definition, by trying every row in turn."""
    rows = []
    for index in sorted(range(len(lengths)), key=lambda i: -lengths[i]):
        fitting = next((row for row in rows if sum(lengths[i] for i in row) + lengths[index] <= capacity), None)
        if fitting is None:
            rows.append(fitting := [])
        fitting.append(index)
    return [sorted(row) for row in rows]


@pytest.mark.parametrize("seed", range(20))
def test_rows_are_those_of_the_definition(seed):
    rng = np.random.default_rng(seed)
    capacity = int(rng.integers(1, 60))
    lengths = rng.integers(1, capacity + 1, size=rng.integers(0, 70))
    rows = pack_rows(lengths, capacity)
    assert rows == first_fit_decreasing(lengths.tolist(), capacity)
    assert sorted(i for row in rows for i in row) == list(range(len(lengths)))


def test_rows_are_nearly_full():
    lengths = np.random.default_rng(0).lognormal(5, 0.7, 2000).astype(int).clip(1, 2048)
    rows = pack_rows(lengths, 2048)
    assert lengths.sum() / (2048 * len(rows)) > 0.98


def test_a_hundred_thousand_samples_take_seconds():
    lengths = np.random.default_rng(0).integers(1, 4096, size=100_000)
    start = time.process_time()
    pack_rows(lengths, 4096)
    assert time.process_time() - start < 10  # 0.6 s here; trying every row in turn takes minutes


@pytest.mark.parametrize("lengths", [[3, 9], [4, 0]])
def test_a_sample_that_fits_no_row_is_named(lengths):
    with pytest.raises(
        ValueError, match=rf"`lengths\[1\]` does not fit a row: expected 1 to 8 tokens, got {lengths[1]}"
    ):
        pack_rows(lengths, 8)


def test_rows_that_were_planned_are_not_split_again():
    """First-fit decreasing over the samples of two planned rows may need three."""
    planned = [[6, 2, 2], [5, 3, 2]]
    lengths = [length for row in planned for length in row]
    assert len(fill_rows(lengths, 10)) == 2
    rng = random.Random(0)
    for _ in range(200):
        lengths = [rng.randint(1, 50) for _ in range(12)]
        rows = pack_rows(lengths, 60)
        again = [lengths[index] for row in rows for index in row]
        assert len(fill_rows(again, 60)) <= len(rows)
        assert sorted(index for row in fill_rows(lengths, 60) for index in row) == list(range(12))
