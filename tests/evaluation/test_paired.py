"""Paired statistics: published values, scipy's, formulas written a second time, and how often intervals hold."""

import numpy as np
import pytest
from scipy.stats import binomtest

from moka_peft.evaluation.paired import half_width, holm, mcnemar, newcombe_interval


@pytest.mark.parametrize(
    ("table", "interval", "p"),
    [
        ((1, 1, 7, 12), (0.0256, 0.5069), 0.0703),  # Bentur et al. 2009, in Fagerland, Lydersen, Laake (2017)
        ((59, 6, 16, 80), (0.0046, 0.1186), 0.0525),  # Cavo et al. 2012, there
        ((36, 12, 2, 0), (-0.3404, -0.0569), 0.0129),  # Newcombe 1998
        ((30, 0, 0, 0), (-0.1135, 0.1135), 1.0),  # no pair differs: the interval is no point
        ((15, 0, 0, 15), (-0.0616, 0.0616), 1.0),
        ((0, 0, 1, 0), (-0.1221, 1.0), 1.0),
    ],
)
def test_published_tables(table, interval, p):
    assert newcombe_interval(*table) == pytest.approx(interval, abs=1e-4)
    assert mcnemar(*table[1:3]) == pytest.approx(p, abs=1e-4)


def test_mcnemar_is_scipys_binomial_test():
    for b in range(12):
        for c in range(12):
            expected = binomtest(b, b + c, 0.5).pvalue if b + c else 1.0
            assert mcnemar(b, c) == pytest.approx(expected, rel=1e-12)


def test_newcombe_a_second_time():
    """By 2 x 2 arrays, Wilson's ends as roots of (p - x)^2 = z^2 x (1 - x) / n."""
    rng = np.random.default_rng(0)
    for table in rng.integers(0, 30, (200, 2, 2)):  # [first wrong or right, second wrong or right]
        n = table.sum()
        if not n:
            continue
        shares = table.sum(0)[1] / n, table.sum(1)[1] / n  # second's, first's
        (l2, u2), (l1, u1) = (
            sorted(np.roots([1 + 1.96**2 / n, -2 * p - 1.96**2 / n, p * p]).real) for p in shares
        )  # fmt: skip
        product = np.linalg.det(table)
        product = max(product - n / 2, 0) if product > 0 else product
        margins = np.prod([*table.sum(0), *table.sum(1)], dtype=float)
        phi = product / margins**0.5 if margins else 0
        p2, p1 = shares
        low = (p2 - l2) ** 2 + (u1 - p1) ** 2 - 2 * phi * (p2 - l2) * (u1 - p1)
        high = (u2 - p2) ** 2 + (p1 - l1) ** 2 - 2 * phi * (u2 - p2) * (p1 - l1)
        found = newcombe_interval(table[1, 1], table[1, 0], table[0, 1], table[0, 0])
        assert found == pytest.approx((p2 - p1 - low**0.5, p2 - p1 + high**0.5), abs=1e-6)


def test_half_width_by_hand():
    """Means of 1, 3 and of 0, 0, 6: variances of the means are 2 / 2 and 12 / 3, and add up."""
    strata = [[(1, 1), (1, 3)], [(1, 0), (1, 0), (1, 6)]]
    assert half_width(strata) == pytest.approx(1.96 * 5**0.5)
    assert half_width([[(2, gap) for _, gap in one] for one in strata]) == half_width(strata)
    assert half_width([*strata, [(1, 9)], []]) == pytest.approx(1.96 * 5**0.5)  # one alone tells nothing
    assert half_width([[(1, 4), (1, 4)], [(1, 2)]]) is None
    assert half_width([]) is None


def test_weights_count_as_often_as_they_say():
    """Weights 3 and 1 of 4 and 0: mean 3; off by 3/4 * 1 and 1/4 * -3, so the variance is 2 * (9 + 9) / 16."""
    assert half_width([[(3, 4), (1, 0)]]) == pytest.approx(1.96 * (2 * 18 / 16) ** 0.5)


@pytest.mark.parametrize(("size", "shares"), [(60, (0.55, 0.15, 0.20, 0.10)), (400, (0.90, 0.02, 0.05, 0.03))])
def test_newcombe_holds_as_often_as_it_says(size, shares):
    rng, true = np.random.default_rng(1), shares[2] - shares[1]
    tables = rng.multinomial(size, shares, 4000)
    held = [low <= true <= high for low, high in (newcombe_interval(*map(int, table)) for table in tables)]
    assert 0.94 <= np.mean(held) <= 0.97


def test_half_width_holds_as_often_as_it_says():
    """Three subtasks of 30, 100 and 200 pictures, whose differences are -200 to 200 in steps of 50."""
    rng, steps = np.random.default_rng(2), np.array([-200, -50, 0, 50, 200])
    odds = [(0.1, 0.1, 0.5, 0.1, 0.2), (0.05, 0.05, 0.7, 0.1, 0.1), (0.02, 0.1, 0.8, 0.06, 0.02)]
    true = sum(steps @ one for one in odds)
    held = []
    for _ in range(800):
        gaps = [rng.choice(steps, size, p=one) for size, one in zip((30, 100, 200), odds, strict=True)]
        half = half_width([[(1, gap) for gap in one] for one in gaps])
        held.append(abs(sum(one.mean() for one in gaps) - true) <= half)
    assert 0.935 <= np.mean(held) <= 0.965


def test_holm_by_hand():
    """Sorted 0.01, 0.02, 0.04 times 3, 2, 1 is 0.03, 0.04, 0.04; never below the one before."""
    assert holm([0.04, None, 0.01, 0.02]) == pytest.approx([0.04, None, 0.03, 0.04])
    assert holm([0.5, 0.9]) == [1.0, 1.0]
