"""What the seconds of an interleaved run say about adapters: time beyond the frozen base's, and ratios.

An adapter's seconds are paired by round: what its provider took, less the mean of the base's repetitions in the same
round; the median over the rounds counts. Ratios of two providers are paired the same way.
"""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from typing import Any

from .rounds import AGAIN

Seconds = Mapping[str, Sequence[float]]
DIGITS = 4


def adapter_seconds(seconds: Seconds, provider: str, base: str = "base") -> list[float]:
    """One per round: `provider`'s seconds less the mean of `base`'s and its repetition's."""
    bases = [seconds[name] for name in (base, base + AGAIN) if name in seconds]
    return [own - statistics.mean(floor) for own, *floor in zip(seconds[provider], *bases, strict=True)]


def spread(values: Sequence[float]) -> dict[str, float]:
    """The median and what lies a quarter from either end."""
    if len(values) < 2:
        return {"median": rounded(values[0]), "low": rounded(values[0]), "high": rounded(values[0])}
    low, middle, high = statistics.quantiles(values, n=4, method="inclusive")
    return {"median": rounded(middle), "low": rounded(low), "high": rounded(high)}


def provider_facts(seconds: Seconds, base: str = "base") -> dict[str, dict[str, Any]]:
    """Per provider: median seconds; of adapters also their own, absolute and as a share of the base's."""
    floor = statistics.median(seconds[base])
    facts: dict[str, dict[str, Any]] = {}
    for name, values in seconds.items():
        facts[name] = {"seconds": rounded(statistics.median(values))}
        if name not in (base, base + AGAIN):
            own = adapter_seconds(seconds, name, base)
            facts[name] |= {
                "adapter_seconds": spread(own),
                "adapter_share_of_base": rounded(statistics.median(own) / floor),
            }
    return facts


def compare(seconds: Seconds, ours: str, theirs: str, base: str = "base") -> dict[str, Any]:
    """`ours` against `theirs`: `total` and `adapter`, medians of ours over theirs, and the rounds' own spread.

    `adapter` is None where theirs is the base or takes no measurable time beyond it.
    """
    total = [a / b for a, b in zip(seconds[ours], seconds[theirs], strict=True)]
    own, other = adapter_seconds(seconds, ours, base), adapter_seconds(seconds, theirs, base)
    middle = statistics.median(other)
    has_adapter = middle > 0 and theirs != base
    adapter = [a / b for a, b in zip(own, other, strict=True) if b > 0]
    return {
        "ours": ours,
        "theirs": theirs,
        "total": rounded(statistics.median(seconds[ours]) / statistics.median(seconds[theirs])),
        "total_by_round": spread(total),
        "adapter": rounded(statistics.median(own) / middle) if has_adapter else None,
        "adapter_by_round": spread(adapter) if adapter and has_adapter else None,
        "their_share_of_base": rounded(middle / statistics.median(seconds[base])),
    }


def rounded(value: float) -> float:
    """Four significant digits: more than a timing tells."""
    return float(f"{value:.{DIGITS}g}")
