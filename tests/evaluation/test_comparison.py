"""Runs side by side: tables made by hand, questions that are not the same, and scores that are no mean of records."""

import json
from collections.abc import Sequence
from dataclasses import replace

import pytest

from moka_peft.evaluation import BENCHMARKS, PROTOCOLS, Benchmark, Judged, Record, Score
from moka_peft.evaluation.comparison import SCORED_TOGETHER, Table, compare_records
from moka_peft.evaluation.paired import half_width, mcnemar, newcombe_interval
from moka_peft.evaluation.score import score_shares

POPE = BENCHMARKS["pope"]


def records(said: str, **changed: str) -> list[Record]:
    """One letter per question: y and n are yes and no; yes is right."""
    words = {"y": "Yes", "n": "No", "?": "I know"}
    asked = {"question": "Is it?", "reference": "yes"} | changed
    return [Record(f"q-{place}", prediction=words.get(one, one), **asked) for place, one in enumerate(said)]


def benchmark_of(rights: dict[str, float | None], like: Benchmark = POPE) -> Benchmark:
    """A benchmark in which a prediction is worth what is said here."""

    def score(records: Sequence[Record], judged: Sequence[Judged], protocol: str) -> Score:
        return score_shares(records, judged, lambda record: [])

    return replace(like, parse=lambda record, protocol: Judged(1, rights[record.prediction]), score=score)


def test_a_table_by_hand():
    lora, moka = records("yyyyyynnn?"), records("yyyynnyyy?")
    found = compare_records(POPE, "pope", {"lora": lora, "moka": moka[::-1]}, "strict")
    [one] = found.contrasts
    assert (found.benchmark, found.protocol, found.baseline, found.unit) == ("pope", "strict", "lora", "%")
    assert (one.run, one.records, one.left_out, one.right) == ("moka", 10, 0, Table(4, 2, 3, 1))
    assert (one.baseline_score, one.score) == (60.0, 70.0) and one.difference == pytest.approx(10)
    assert one.interval == pytest.approx([100 * end for end in newcombe_interval(4, 2, 3, 1)])
    assert one.p == one.p_adjusted == pytest.approx(1.0)  # 2 of 5: 2 * (1 + 5 + 10) / 32
    assert found.details == {}


def test_several_runs_are_corrected_for():
    runs = {"lora": records("n" * 12), "a": records("y" * 6 + "n" * 6), "b": records("y" * 9 + "nnn")}
    first, second = compare_records(POPE, "pope", runs | {"c": runs["lora"]}, "authors").contrasts[:2]
    assert (first.p, second.p) == (2 / 2**6, 2 / 2**9)
    assert (first.p_adjusted, second.p_adjusted) == (2 * first.p, 3 * second.p)


def test_the_same_answers_differ_by_nothing():
    [one] = compare_records(POPE, "pope", {"a": records("yyyn"), "b": records("yyyn")}, "strict").contrasts
    assert (one.difference, one.p) == (0.0, 1.0)
    assert one.interval is not None and one.interval[0] < 0 < one.interval[1]


def test_what_a_protocol_drops_in_either_run_is_left_out():
    made = benchmark_of({"1": 1.0, "0": 0.0, "-": None})
    [one] = compare_records(made, "made", {"a": records("1100-1-"), "b": records("1-1-010")}, "authors").contrasts
    assert (one.records, one.left_out, one.right) == (3, 4, Table(2, 0, 1, 0))
    assert (one.baseline_score, one.score) == (pytest.approx(200 / 3), 100.0)
    [none] = compare_records(made, "made", {"a": records("1-"), "b": records("-1")}, "authors").contrasts
    assert (none.records, none.difference, none.interval, none.p) == (0, None, None, 1.0)


def test_shares_are_right_as_a_whole_and_differ_in_part():
    made = benchmark_of({"a": 1.0, "b": 0.9, "c": 0.2, "d": 0.0})
    found = compare_records(made, "made", {"one": records("abcd"), "other": records("aaac")}, "strict")
    [one] = found.contrasts
    assert one.right == Table(1, 0, 2, 1)
    half = half_width([[(1, 0), (1, 10), (1, 80), (1, 20)]])
    assert half is not None and one.interval == pytest.approx((27.5 - half, 27.5 + half))
    assert "where all of it is" in found.details["right"]


def test_mme_differs_by_picture_within_a_subtask():
    """count: pictures of 200, 50, 0 become 200, 200, 50; color: of 50, 0, in four and in two questions, 200, 0."""
    made = replace(POPE, parse=lambda record, protocol: Judged(1, float(record.prediction)), score=_sum, unit="points")
    facts = [("count", name) for name in "aabbcc"] + [("color", name) for name in ("x/d", "y\\d", "d", "d", "e", "e")]
    runs = {
        run: [replace(r, facts={"subtask": s, "image": i}) for r, (s, i) in zip(records(said), facts, strict=True)]
        for run, said in {"lora": "110100" + "010100", "moka": "111110" + "111100"}.items()
    }
    [one] = compare_records(made, "mme", runs, "strict").contrasts
    half = half_width([[(1, 0), (1, 150), (1, 50)], [(2, 150), (1, 0)]])
    assert (one.baseline_score, one.difference) == (pytest.approx(250 / 3 + 100 / 3), pytest.approx(200 / 3 + 100))
    assert half is not None and one.interval == pytest.approx((one.difference - half, one.difference + half))
    assert one.right == Table(5, 0, 4, 3) and one.p == mcnemar(0, 4)


def _sum(records: Sequence[Record], judged: Sequence[Judged], protocol: str) -> Score:
    """Per subtask the mean of its pictures' pairs of questions; the sum of these."""
    pictures: dict[tuple[str, str], list[float]] = {}
    for record, one in zip(records, judged, strict=True):
        pictures.setdefault((record.facts["subtask"], record.facts["image"][-1]), []).append(one.right or 0)
    pairs: dict[str, list[float]] = {}
    for (subtask, _), rights in pictures.items():
        worth = [50 * (a + b) + 100 * a * b for a, b in zip(rights[::2], rights[1::2], strict=True)]
        pairs.setdefault(subtask, []).extend(worth)
    return Score(sum(sum(worth) / len(worth) for worth in pairs.values()), None)


@pytest.mark.parametrize("name", sorted(BENCHMARKS.keys() - SCORED_TOGETHER.keys()))
def test_other_scores_are_means_over_records(name):
    """What the intervals of their differences rest on."""
    facts = {"type": ["Audio", "Counting"], "choices": {"A": "a", "B": "b"}, "question_type": "x"}
    right = {"ave": "event:Bark start_time:0 end_time:3"}.get(name, "yes")
    asked = [Record("", "", right, "", facts) for _ in range(3)]
    for protocol in PROTOCOLS:
        judged = [Judged("", points) for points in (1.0, 0.0, 0.5)]
        assert BENCHMARKS[name].score(asked, judged, protocol).score == pytest.approx(50)


@pytest.mark.parametrize(("other", "message"), [
    (records("yy"), r"b cannot be compared with a on pope: expected answers to the same questions, got 3 that only a "
                    r"has \(q-2, q-3, q-4\)\. Run `moka eval` for both on the same folder"),
    ([*records("yyyyyyyyyy")[4:], replace(records("y")[0], id="z")],
     r"got 4 that only a has \(q-0, q-1, q-2, \.\.\.\) and 6 that only b has \(q-5, q-6, q-7, \.\.\.\)\. Run"),
    (records("yyyyy", reference="no"), "`reference` of q-0 is not that of a: expected 'yes', got 'no'. Run `moka"),
    (records("yyyyy", question="Is he?"), "`question` of q-0 is not that of a: expected 'Is it.', got 'Is he"),
    ([replace(one, id="") for one in records("yyyyy")], "b: `id` is missing: expected one in each record of a"),
    (records("yyyyy") + records("y"), "b: `id` q-0 is not the only one: expected each once."),
])  # fmt: skip
def test_other_questions_are_refused(other, message):
    with pytest.raises(ValueError, match=message):
        compare_records(POPE, "pope", {"a": records("ynyny"), "b": other}, "strict")


def test_one_run_is_too_few():
    with pytest.raises(ValueError, match="`runs` of pope are too few: expected two or more, got 1"):
        compare_records(POPE, "pope", {"a": records("y")}, "strict")


def test_json_holds_it():
    runs = {"a": records("yn"), "b": records("yy"), "c": records("nn")}
    told = compare_records(POPE, "pope", runs, "strict").as_json()
    assert json.loads(json.dumps(told, allow_nan=False)) == told | {
        "contrasts": [one | {"interval": list(one["interval"])} for one in told["contrasts"]]
    }
    assert told["contrasts"][0]["right"] == {"both": 1, "only_baseline": 0, "only_run": 1, "neither": 0}
