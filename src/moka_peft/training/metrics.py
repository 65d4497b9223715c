"""How an answer is compared with the right one: metrics by name, and their intervals."""

import math
import re
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any

from moka_peft.data import Sample

Points = tuple[float, float]  # what an answer scores, and what it weighs


def normalise(answer: str) -> str:
    """The form in which two answers are compared."""
    return " ".join(answer.casefold().split()).removesuffix(".")


def exact_match(right: str, given: str) -> Points:
    """1 where the answers are the same; case, surrounding space and a final full stop are not compared."""
    return float(normalise(right) == normalise(given)), 1.0


def contains(right: str, given: str) -> Points:
    """1 where the right answer's words stand together in what was given."""
    return float(f" {' '.join(_words(right))} " in f" {' '.join(_words(given))} "), 1.0


def token_f1(right: str, given: str) -> Points:
    """Harmonic mean of precision and recall of the words, as SQuAD scores answers (articles are words here)."""
    a, b = Counter(_words(right)), Counter(_words(given))
    common = (a & b).total()
    return (2 * common / (a.total() + b.total()) if common else float(a == b)), 1.0


def wer(right: str, given: str) -> Points:
    """Word errors (substituted, missing, added), weighed by the right answer's words: the sum is the corpus' rate."""
    a, b = _words(right), _words(given)
    row = list(range(len(b) + 1))  # errors between the words of `a` so far and each beginning of `b`
    for i, word in enumerate(a, start=1):
        before, row[0] = row[0], i
        for j, other in enumerate(b, start=1):
            before, row[j] = row[j], min(row[j] + 1, row[j - 1] + 1, before + (word != other))
    return float(row[-1]), float(len(a))


METRICS: dict[str, Callable[[str, str], Points]] = {
    "exact_match": exact_match,
    "contains": contains,
    "token_f1": token_f1,
    "wer": wer,
}
SHARES = ("exact_match", "contains")  # an answer is right or wrong
LOWER_IS_BETTER = ("loss", "wer")


def score_answers(
    samples: Sequence[Sample], answers: Sequence[str], metric: str = "exact_match"
) -> dict[str, dict[str, Any]]:
    """Scores answers over all samples (`all`) and per question group.

    A metric of right and wrong gives `right`, `total`, `accuracy`; another one `value`, `total`; both a 95 % interval.
    """
    points: dict[str, list[Points]] = {"all": []}
    for sample, answer in zip(samples, answers, strict=True):
        for group in ("all", sample.group or "no group"):
            points.setdefault(group, []).append(METRICS[metric](sample.answer, answer))
    summarise = _share if metric in SHARES else _rate
    return {group: summarise(scored) for group, scored in points.items()}


def value_of(score: dict[str, Any]) -> float:
    """The number that a score comes to."""
    return score["accuracy"] if "accuracy" in score else score["value"]


def wilson_interval(right: float, total: int, z: float = 1.96) -> tuple[float, float]:
    """The 95 % interval of a share by Wilson's score method, which holds near 0 and 1 too."""
    if total == 0:
        return 0.0, 1.0
    share, spread = right / total, z * z / total
    middle = (share + spread / 2) / (1 + spread)
    half = z * math.sqrt(share * (1 - share) / total + spread / (4 * total)) / (1 + spread)
    return max(0.0, middle - half), min(1.0, middle + half)


def _share(points: Sequence[Points]) -> dict[str, Any]:
    right, total = int(sum(score for score, _ in points)), len(points)
    return {
        "right": right,
        "total": total,
        "accuracy": right / max(total, 1),
        "interval": wilson_interval(right, total),
    }


def _rate(points: Sequence[Points]) -> dict[str, Any]:
    """Sum of scores over sum of weights, with the interval of a ratio estimate."""
    count, weight = len(points), sum(weight for _, weight in points)
    value = sum(score for score, _ in points) / max(weight, 1.0)
    squares = sum((score - value * weight) ** 2 for score, weight in points)
    half = 1.96 * math.sqrt(squares * count / max(count - 1, 1)) / max(weight, 1.0)
    return {"value": value, "total": count, "interval": (max(0.0, value - half), value + half)}


def _words(text: str) -> list[str]:
    return re.findall(r"\w+(?:'\w+)*", text.casefold())
