"""How far two models' answers to the same questions differ: a test, intervals, and a correction for several tests.

Questions are taken as independent of each other: where several are asked about one picture, an interval may be
too narrow, and p too small.
"""

import math
from collections.abc import Sequence
from typing import Any, TypeVar

import numpy as np
from scipy.special import bdtr

from moka_peft.evaluation.score import Interval
from moka_peft.training.metrics import wilson_interval

P = TypeVar("P", float, float | None)
Z = 1.96  # 95 %, as wilson_interval has it


def mcnemar(only_first: int, only_second: int) -> float:
    """The two-sided p value of McNemar's test, exact: the binomial of the pairs that only one has right.

    1 where there is no such pair.
    """
    pairs = only_first + only_second
    return min(1.0, 2 * float(bdtr(min(only_first, only_second), pairs, 0.5))) if pairs else 1.0


def newcombe_interval(both: int, only_first: int, only_second: int, neither: int) -> Interval:
    """The 95 % interval of the second's share of right answers less the first's, between -1 and 1.

    Method 10 of Newcombe (Statistics in Medicine 17, 1998): Wilson's intervals of the two shares, combined with the
    correlation of the pairs; it holds near 0 and 1, and where no pair differs.
    """
    total = both + only_first + only_second + neither
    a, b = (both + only_second) / total, (both + only_first) / total
    (low_a, high_a), (low_b, high_b) = wilson_interval(a * total, total, Z), wilson_interval(b * total, total, Z)
    phi = _correlation(both, only_first, only_second, neither)
    down, up = _combine(a - low_a, high_b - b, phi), _combine(high_a - a, b - low_b, phi)
    return a - b - down, a - b + up


def _correlation(both: int, only_first: int, only_second: int, neither: int) -> float:
    """Phi of the two by two table, a positive one with a correction for continuity; 0 where it is not defined."""
    margins = (both + only_first) * (only_second + neither) * (both + only_second) * (only_first + neither)
    product = float(both * neither - only_first * only_second)
    if product > 0:
        product = max(product - (both + only_first + only_second + neither) / 2, 0.0)
    return product / math.sqrt(margins) if margins else 0.0


def _combine(a: float, b: float, phi: float) -> float:
    return math.sqrt(max(a * a - 2 * phi * a * b + b * b, 0.0))


def half_width(strata: Sequence[Sequence[tuple[float, float]]]) -> float | None:
    """Half of the 95 % interval of a sum of weighted means, one per stratum, of (weight, difference): a normal one.

    The weights are random, too, so that each mean is a ratio (Cochran, Sampling Techniques, 1977, eq. 6.13). A stratum
    of one tells nothing of its spread and adds none. None where no difference varies: then nothing tells how far the
    sum may be off.
    """
    variance = 0.0
    for stratum in strata:
        weights, gaps = np.array(stratum, float).reshape(-1, 2).T
        if len(gaps) > 1:
            shares = weights / weights.sum()
            off = shares * (gaps - shares @ gaps)
            variance += float(off @ off) * len(gaps) / (len(gaps) - 1)
    return Z * math.sqrt(variance) if variance > 1e-18 else None


def holm(p_values: Sequence[P]) -> list[P]:
    """Holm's correction for several comparisons at once: adjusted p values, in the order given; None stays None."""
    order = sorted((p, place) for place, p in enumerate(p_values) if p is not None)
    adjusted: list[Any] = [None] * len(p_values)
    largest = 0.0
    for rank, (p, place) in enumerate(order):
        largest = max(largest, min(1.0, p * (len(order) - rank)))
        adjusted[place] = largest
    return adjusted
