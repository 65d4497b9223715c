import pytest

from moka_peft.composite import load_tiny_avt
from moka_peft.data import Collator, Sample
from moka_peft.training import generate_answers, load_recipe, score_answers, wilson_interval
from moka_peft.training.answers import sum_losses
from moka_peft.training.reading import held_out_collator


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


def test_blank_media_that_keep_sharded_processes_together_change_nothing(write_yaml, monkeypatch):
    model, processor = load_tiny_avt()
    questions = [sample("one"), sample("two three"), sample("four")]
    plain, blank = Collator(processor), _collator_of_a_sharded_run(write_yaml, processor, monkeypatch)
    assert blank.collate_prompts(questions)["input_ids"].shape[0] == 5
    limits = {"batch_size": 2, "max_new_tokens": 3}
    answers = [generate_answers(model, processor, c.collate_prompts, questions, **limits) for c in (plain, blank)]
    assert len(answers[1]) == 3 and answers[0] == answers[1]
    (loss, tokens), (blank_loss, blank_tokens) = (sum_losses(model, c, questions, batch_size=2) for c in (plain, blank))
    assert tokens == blank_tokens and loss == pytest.approx(blank_loss, rel=1e-5)


def _collator_of_a_sharded_run(write_yaml, processor, monkeypatch) -> Collator:
    monkeypatch.setattr("moka_peft.training.reading.world_size", lambda: 2)
    monkeypatch.setattr("moka_peft.training.reading.is_sharded", lambda: True)
    return held_out_collator(load_recipe(write_yaml()), processor)
