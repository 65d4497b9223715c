import numpy as np
import pytest
import scipy.stats

from moka_peft.analysis.compare.statistics import paired_difference, paired_ratio, paired_t, spread


def test_spread_divides_by_one_less():
    found = spread([1.0, 2.0, 4.0])
    assert found.mean == pytest.approx(7 / 3)
    assert found.sd == pytest.approx(np.sqrt(((4 / 3) ** 2 + (1 / 3) ** 2 + (5 / 3) ** 2) / 2))
    assert found.count == 3
    assert spread([1.0]).sd is None


@pytest.mark.parametrize("count", [2, 3, 5, 10])
def test_paired_t_is_that_of_scipy(count):
    gaps = np.random.default_rng(count).normal(0.5, 1.0, count)
    interval, p = paired_t(list(gaps))
    right = scipy.stats.ttest_1samp(gaps, 0.0)
    assert interval == pytest.approx(tuple(right.confidence_interval(0.95)))
    assert p == pytest.approx(right.pvalue)


def test_interval_of_two_known_differences():
    """t of 0.975 at one degree of freedom is 12.7062; the standard error of 1 and 3 is 1."""
    assert paired_t([1.0, 3.0])[0] == pytest.approx((2 - 12.7062, 2 + 12.7062), abs=1e-4)


@pytest.mark.parametrize("gaps", [[], [0.1], [0.0, 0.0, 0.0], [0.2, 0.2], [0.1 + 0.2, 0.3]])
def test_no_interval_without_variation(gaps):
    assert paired_t(gaps) == (None, None)


def test_paired_t_covers_the_truth_as_often_as_it_says():
    generator = np.random.default_rng(0)
    hits = 0
    for gaps in generator.normal(0.3, 2.0, (2000, 4)):
        low, high = paired_t(list(gaps))[0]
        hits += low <= 0.3 <= high
    assert 0.935 <= hits / 2000 <= 0.965


def test_difference_takes_common_seeds_only(make_runs):
    ours = make_runs("moka", scores=[0.8, 0.9, 0.7])
    theirs = make_runs("lora", scores=[0.7, 0.6, 0.1, 0.2])
    del ours[2]
    found = paired_difference(ours, theirs)
    assert found.seeds == (0, 1)
    assert found.mean == pytest.approx(0.2)
    assert found.sd == pytest.approx(np.sqrt(0.02))


def test_difference_says_why_an_interval_is_missing(make_runs):
    theirs = make_runs("lora", points=[[0, 1, 0, 1], [1, 1, 0, 0]])
    one = paired_difference(make_runs("moka", points=[[1, 1, 1, 1]]), theirs)
    assert (one.mean, one.sd, one.interval, one.p, one.bootstrap) == (0.5, None, None, None, None)
    assert "one seed" in one.missing
    same = paired_difference(make_runs("moka", points=[[1, 1, 1, 0], [0, 1, 1, 1]]), theirs)
    assert same.interval is None and same.bootstrap is not None
    assert "same difference" in same.missing
    silent = paired_difference(make_runs("moka", scores=[0.6, 0.8]), theirs)
    assert silent.interval is not None and silent.bootstrap is None
    assert "no answers" in silent.missing


def test_no_difference_without_a_common_seed(make_runs):
    ours = {5: make_runs("moka", scores=[0.8])[0]}
    assert paired_difference(ours, make_runs("lora", scores=[0.7])) is None


def test_ratio_is_paired_and_bears_one_slow_run():
    assert paired_ratio({0: 2.0, 1: 40.0, 2: 90.0, 3: 1.0}, {0: 1.0, 1: 20.0, 2: 3.0}) == 2.0
    assert paired_ratio({0: 1.0}, {1: 1.0}) is None
