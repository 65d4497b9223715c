"""Results as plain data: what they count, why they are partial, and that JSON can hold them."""

import json
import math
from collections.abc import Sequence
from dataclasses import replace

import pytest

from moka_peft.evaluation import BENCHMARKS, Benchmark, Judged, Record, Score, summarise
from moka_peft.evaluation.score import score_shares

RIGHT = {"right": 1.0, "half": 0.5, "wrong": 0.0, "?": 0.0, "dropped": None}


def records(*said: str, group: str = "seen") -> list[Record]:
    return [Record("", "", "right", word, {"group": group}) for word in said]


def parse(record: Record, protocol: str) -> Judged:
    return Judged(None if record.prediction == "?" else record.prediction, RIGHT[record.prediction])


def score(records: Sequence[Record], judged: Sequence[Judged], protocol: str) -> Score:
    return score_shares(
        records, judged, lambda record: [record.facts["group"]], left=math.nan, deep={"a": [math.inf, 1]}
    )


MADE = replace(BENCHMARKS["pope"], parse=parse, score=score, published={})


def test_counts():
    result = summarise("made", MADE, records("right", "half", "wrong", "?", "dropped"), "strict")
    assert (result.score, result.records, result.unparseable, result.dropped) == (37.5, 5, 1, 1)
    assert result.partial is None
    share = result.groups["seen"]
    assert (share.right, share.records, share.unparseable, share.score) == (1.5, 5, 1, 37.5)
    assert share.interval == result.interval == pytest.approx((9.19, 78.06), abs=0.01)  # Wilson, 1.5 of 4


@pytest.mark.parametrize(("published", "partial"), [
    ({"all": 2}, None),
    ({"all": 1}, None),
    ({"all": 1234}, "2 of 1,234 records"),
    ({"all": 3, "seen": 4, "other": 5}, "2 of 3 records, 2 of 4 records of seen"),  # other has none: it was not asked
])  # fmt: skip
def test_fewer_than_published_is_partial(published, partial):
    made = replace(MADE, published=published)
    assert summarise("made", made, records("right", "wrong"), "strict").partial == partial
    assert summarise("made", made, records("right"), "strict", "2 of 9 asked").partial == "2 of 9 asked"


def test_json_holds_it():
    result = summarise("made", replace(MADE, published={"all": 9}), records("right", "wrong"), "authors")
    told = json.loads(json.dumps(result.as_json(), allow_nan=False))
    assert {name: told[name] for name in ("benchmark", "protocol", "score", "records", "unparseable", "unit")} == {
        "benchmark": "made", "protocol": "authors", "score": 50.0, "records": 2, "unparseable": 0, "unit": "%",
    }  # fmt: skip
    assert (told["partial"], told["partial_because"]) == (True, "2 of 9 records")
    assert told["details"] == {"left": None, "deep": {"a": [None, 1]}}
    assert told["groups"]["seen"]["interval"] == told["interval"] == list(result.interval)


def test_nothing_counts():
    told = summarise("made", MADE, records("dropped", "dropped"), "authors").as_json()
    assert (told["score"], told["interval"], told["dropped"]) == (None, None, 2)
    assert told["groups"]["seen"]["score"] is None
    nan = replace(MADE, score=lambda *_: Score(math.nan, (math.nan, math.nan)))
    told = summarise("made", nan, records("right"), "strict").as_json()
    assert (told["score"], told["interval"], told["partial"]) == (None, [None, None], False)


@pytest.mark.parametrize("name", BENCHMARKS)
def test_benchmarks_have_what_a_result_needs(name):
    known: Benchmark = BENCHMARKS[name]
    assert known.title and known.unit in ("%", "points")
    assert all(keys[0] == fact for fact, keys in known.needs.items())  # records keep a fact under its own name
    assert all(count > 0 for count in known.published.values())
