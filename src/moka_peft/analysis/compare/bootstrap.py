"""The two-level bootstrap: how a difference between two methods moves with other seeds and other questions."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from moka_peft.analysis.compare.results import Result

DRAWS = 10_000
LARGEST_BLOCK = 4_000_000  # resampled questions held at once: 32 MB of float64


@dataclass(frozen=True)
class Answers:
    """What one method's answers scored and weighed, both [seeds, questions]; a question that was not asked weighs 0."""

    points: np.ndarray
    weights: np.ndarray

    def scores(self, asked: np.ndarray) -> np.ndarray:
        """The metric of each seed where each question counts as often as `asked` [D, questions] says: [D, seeds]."""
        return asked @ self.points.T / np.maximum(asked @ self.weights.T, 1.0)


def pair_answers(ours: Sequence[Result], theirs: Sequence[Result]) -> tuple[Answers, Answers]:
    """The answers of two methods' runs, a row per seed, a column per question of any of them.

    Raises ValueError where the two runs of a seed answered other questions.
    """
    for one, other in zip(ours, theirs, strict=True):
        if one.points.keys() != other.points.keys():
            raise ValueError(
                f"`answers` of {one.cell} and {other.cell} cannot be paired: expected the same questions, got "
                f"{len(one.points)} and {len(other.points)} with {len(one.points.keys() & other.points.keys())} in "
                "common. Compare runs with the same `data.eval`."
            )
    questions = sorted({question for run in ours for question in run.points})
    return _as_matrices(ours, questions), _as_matrices(theirs, questions)


def _as_matrices(runs: Sequence[Result], questions: Sequence[tuple[str, int]]) -> Answers:
    values = np.array([[run.points.get(question, (0.0, 0.0)) for question in questions] for run in runs], float)
    return Answers(values[..., 0], values[..., 1])


def draw_differences(ours: Answers, theirs: Answers, *, draws: int = DRAWS, seed: int = 0) -> np.ndarray:
    """`draws` differences of the mean score, each over seeds and questions drawn with replacement.

    A draw takes the same seeds and the same questions for both methods, and the same questions for all its seeds.
    """
    generator = np.random.default_rng(seed)
    seeds, questions = ours.points.shape
    block = max(1, LARGEST_BLOCK // questions)
    found = []
    for start in range(0, draws, block):
        count = min(block, draws - start)
        asked, taken = _draw_counts(generator, count, questions), _draw_counts(generator, count, seeds)
        gaps = ours.scores(asked) - theirs.scores(asked)  # [D, seeds]
        found.append((taken * gaps).sum(axis=1) / seeds)
    return np.concatenate(found)


def _draw_counts(generator: np.random.Generator, draws: int, size: int) -> np.ndarray:
    """How often each of `size` things comes up in `size` draws with replacement, [draws, size]."""
    picked = generator.integers(0, size, (draws, size))
    picked += np.arange(draws)[:, None] * size
    return np.bincount(picked.ravel(), minlength=draws * size).reshape(draws, size).astype(float)


def bootstrap_interval(
    ours: Sequence[Result], theirs: Sequence[Result], *, draws: int = DRAWS, seed: int = 0
) -> tuple[float, float]:
    """The middle 95 % of the drawn differences (percentiles); the runs of both are in the same order of seeds."""
    low, high = np.quantile(draw_differences(*pair_answers(ours, theirs), draws=draws, seed=seed), (0.025, 0.975))
    return float(low), float(high)
