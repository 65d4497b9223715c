import pytest

from moka_peft.data import Sample
from moka_peft.training import score_answers, wilson_interval


def sample(answer: str, group: str | None = None) -> Sample:
    return Sample("id", [{"role": "user", "content": "?"}, {"role": "assistant", "content": answer}], group)


def test_exact_match_per_group():
    samples = [sample("Yes", "Audio"), sample("no", "Audio"), sample("three", "Visual"), sample("two  notes")]
    scores = score_answers(samples, ["yes.", "yes", " Three", "two notes"])
    counts = {group: (score["right"], score["total"]) for group, score in scores.items()}
    assert counts == {"all": (3, 4), "Audio": (1, 2), "Visual": (1, 1), "no group": (1, 1)}
    assert scores["all"]["accuracy"] == 0.75


@pytest.mark.parametrize(("answer", "given"), [("one", "one two"), ("one", ""), ("10", "1")])
def test_part_of_an_answer_is_wrong(answer: str, given: str):
    assert score_answers([sample(answer)], [given])["all"]["right"] == 0


def test_wilson_interval_equals_the_published_value():
    # Newcombe 1998, table I: 81 of 263.
    assert wilson_interval(81, 263) == pytest.approx((0.2553, 0.3662), abs=1e-4)
    assert wilson_interval(0, 0) == (0.0, 1.0)
