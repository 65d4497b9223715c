"""A benchmark's result under one protocol, as plain data: what is printed, written to JSON and compared."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from moka_peft.evaluation.benchmark import Benchmark
from moka_peft.evaluation.record import Protocol, Record
from moka_peft.evaluation.score import Interval, Judged, Score, Share


@dataclass(frozen=True)
class Summary:
    """score, interval (95 %) and the groups' scores: per cent, or MME's points. records: all of the file.

    unparseable: records in which no answer could be read. dropped: records that the protocol leaves out of its
    denominator. partial: why the result is not that of the whole published set, else None.
    """

    benchmark: str
    protocol: Protocol
    score: float | None
    interval: Interval | None
    unit: str
    records: int
    unparseable: int
    dropped: int
    partial: str | None
    groups: dict[str, Share]
    details: dict[str, Any]

    def as_json(self) -> dict[str, Any]:
        """Plain JSON data: `partial` says whether, `partial_because` why; a number that is none is null."""
        data = _plain(asdict(self))
        return data | {"partial": self.partial is not None, "partial_because": self.partial}


def _plain(value: Any) -> Any:
    """The same without numbers that JSON does not have."""
    if isinstance(value, Mapping):
        return {key: _plain(one) for key, one in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(one) for one in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def summarise(
    name: str, benchmark: Benchmark, records: Sequence[Record], protocol: Protocol, partial: str | None = None
) -> Summary:
    """Scores records of the benchmark called `name`. partial: why they are not all, where that is known."""
    judged = [benchmark.parse(record, protocol) for record in records]
    scored = benchmark.score(records, judged, protocol)
    return Summary(
        name,
        protocol,
        scored.score,
        scored.interval,
        benchmark.unit,
        len(records),
        sum(one.parsed is None for one in judged),
        sum(one.right is None for one in judged),
        partial or ", ".join(filter(None, [scored.partial, _missing(benchmark, scored, judged)])) or None,
        dict(scored.groups),
        dict(scored.details),
    )


def _missing(benchmark: Benchmark, scored: Score, judged: Sequence[Judged]) -> str | None:
    """Which groups have fewer records than were published."""
    sizes = {"all": len(judged), **{name: share.records for name, share in scored.groups.items()}}
    short = [
        f"{sizes[name]:,} of {count:,} records" + ("" if name == "all" else f" of {name}")
        for name, count in benchmark.published.items()
        if 0 < sizes.get(name, 0) < count
    ]
    return ", ".join(short) or None
