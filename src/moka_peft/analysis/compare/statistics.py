"""Means over seeds, and differences to a baseline paired by seed, with their intervals."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from scipy.special import stdtr, stdtrit

from moka_peft.analysis.compare.bootstrap import bootstrap_interval
from moka_peft.analysis.compare.results import Result
from moka_peft.training.folder import ANSWERS

Interval = tuple[float, float]


@dataclass(frozen=True)
class Spread:
    """Mean and standard deviation (n - 1; None of one value) over `count` seeds."""

    mean: float
    sd: float | None
    count: int


@dataclass(frozen=True)
class Difference:
    """What a method scores beyond its baseline, over the `seeds` that both have finished.

    `interval` and `p` are of a paired t test over seeds, `bootstrap` also lets the questions vary; both intervals
    hold 95 %. `missing`: why one of them is None.
    """

    seeds: tuple[int, ...]
    mean: float
    sd: float | None
    interval: Interval | None
    p: float | None
    bootstrap: Interval | None
    missing: str = ""


def spread(values: Sequence[float]) -> Spread:
    """Mean and standard deviation of one value per seed."""
    sd = float(np.std(values, ddof=1)) if len(values) > 1 else None
    return Spread(float(np.mean(values)), sd, len(values))


def paired_t(differences: Sequence[float]) -> tuple[Interval | None, float | None]:
    """The 95 % interval of the mean of `differences` by Student's t, and the two-sided p value of a mean of zero.

    Both None for fewer than two differences, and for differences that are all equal: they do not vary, so nothing
    says how far the mean may be off.
    """
    count = len(differences)
    if count < 2 or np.ptp(differences) <= 1e-12 * np.max(np.abs(differences)):
        return None, None
    mean = float(np.mean(differences))
    error = float(np.std(differences, ddof=1)) / count**0.5
    half = float(stdtrit(count - 1, 0.975)) * error
    return (mean - half, mean + half), 2 * float(stdtr(count - 1, -abs(mean) / error))


def paired_difference(ours: Mapping[int, Result], theirs: Mapping[int, Result]) -> Difference | None:
    """The difference in score of two methods' runs, by seed; None where they have no seed in common."""
    seeds = tuple(sorted(ours.keys() & theirs.keys()))
    if not seeds:
        return None
    gaps = [ours[seed].score - theirs[seed].score for seed in seeds]
    overall, (interval, p) = spread(gaps), paired_t(gaps)
    missing, bootstrap = _why_missing(gaps), None
    pairs = [ours[seed] for seed in seeds], [theirs[seed] for seed in seeds]
    if len(seeds) > 1:
        if all((run.folder / ANSWERS).is_file() for runs in pairs for run in runs):
            bootstrap = bootstrap_interval(*pairs)
        else:
            missing = missing or "a run has no answers to draw from"
    return Difference(seeds, overall.mean, overall.sd, interval, p, bootstrap, missing)


def _why_missing(gaps: Sequence[float]) -> str:
    if len(gaps) < 2:
        return "one seed in common: no interval"
    return "" if paired_t(gaps)[0] else "the same difference for every seed: no t interval"


def paired_ratio(ours: Mapping[int, float], theirs: Mapping[int, float]) -> float | None:
    """The median over common seeds of one quantity by the other; None without a seed in common.

    The median, as a run that a busy machine held up once says nothing of the method.
    """
    ratios = [ours[seed] / theirs[seed] for seed in ours.keys() & theirs.keys() if theirs[seed] > 0]
    return float(np.median(ratios)) if ratios else None
