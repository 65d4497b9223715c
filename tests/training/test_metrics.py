import pytest

from moka_peft.data import Sample
from moka_peft.training import METRICS, score_answers
from moka_peft.training.metrics import value_of


def sample(answer: str, group: str | None = None) -> Sample:
    return Sample("id", [{"role": "user", "content": "?"}, {"role": "assistant", "content": answer}], group)


@pytest.mark.parametrize(
    ("metric", "right", "given", "points"),
    [
        ("exact_match", "Two notes", "two  notes.", (1, 1)),
        ("exact_match", "two", "two notes", (0, 1)),
        ("contains", "Two notes", "There are two notes, I think.", (1, 1)),
        ("contains", "10", "110 notes", (0, 1)),
        ("contains", "two notes", "two loud notes", (0, 1)),
        ("token_f1", "the red cat", "a red dog", (1 / 3, 1)),
        ("token_f1", "no no", "no", (2 / 3, 1)),
        ("token_f1", "yes", "", (0, 1)),
        ("token_f1", "...", "", (1, 1)),
        ("wer", "the cat sat down", "The cat sat down!", (0, 4)),
        ("wer", "the cat sat down", "a cat sat", (2, 4)),
        ("wer", "yes", "oh yes it is", (3, 1)),
        ("wer", "don't", "do not", (2, 1)),
        ("wer", "", "noise", (1, 0)),
    ],
)
def test_a_metric_scores_one_answer(metric: str, right: str, given: str, points: tuple[float, float]):
    assert METRICS[metric](right, given) == pytest.approx(points)


def test_word_errors_are_divided_by_all_words():
    """4 errors in 1 + 7 words, not the mean of 3 and 1/7."""
    samples = [sample("yes"), sample("one two three four five six seven", "long")]
    scores = score_answers(samples, ["oh yes it is", "one two three four five six"], "wer")
    assert value_of(scores["all"]) == pytest.approx(4 / 8)
    assert value_of(scores["long"]) == pytest.approx(1 / 7)
    assert scores["all"]["total"] == 2


def test_the_interval_of_a_mean():
    """Half 1 and half 0: 1.96 standard errors of 100 values around 0.5."""
    scores = score_answers([sample("yes")] * 100, ["yes"] * 50 + ["no"] * 50, "token_f1")
    assert scores["all"]["interval"] == pytest.approx((0.5 - 1.96 * 0.0503, 0.5 + 1.96 * 0.0503), abs=1e-3)
