import numpy as np
import pytest

from moka_peft.analysis.compare import bootstrap
from moka_peft.analysis.compare.bootstrap import Answers, bootstrap_interval, draw_differences, pair_answers
from moka_peft.analysis.compare.statistics import paired_t


def random_answers(generator, seeds=4, questions=9, chance=0.5, weight=None):
    points = (generator.random((seeds, questions)) < chance).astype(float)
    return Answers(points, np.ones_like(points) if weight is None else np.broadcast_to(weight, points.shape))


def difference_in_a_loop(ours, theirs, seeds, questions):
    """The difference of mean scores where these seeds and questions were drawn."""
    gaps = []
    for seed in seeds:
        one = sum(ours.points[seed, q] for q in questions) / sum(ours.weights[seed, q] for q in questions)
        other = sum(theirs.points[seed, q] for q in questions) / sum(theirs.weights[seed, q] for q in questions)
        gaps.append(one - other)
    return sum(gaps) / len(gaps)


@pytest.mark.parametrize("weight", [None, np.arange(1.0, 10.0)])
def test_draws_are_those_of_a_loop(weight, monkeypatch):
    generator = np.random.default_rng(0)
    ours, theirs = (random_answers(generator, chance=chance, weight=weight) for chance in (0.7, 0.4))
    drawn = []
    count_of = bootstrap._draw_counts

    def counts(*arguments):
        drawn.append(count_of(*arguments))
        return drawn[-1]

    monkeypatch.setattr(bootstrap, "_draw_counts", counts)
    found = draw_differences(ours, theirs, draws=20)
    for value, asked, taken in zip(found, *drawn, strict=True):
        seeds, questions = (np.repeat(np.arange(len(row)), row.astype(int)) for row in (taken, asked))
        assert len(seeds) == 4 and len(questions) == 9
        assert value == pytest.approx(difference_in_a_loop(ours, theirs, seeds, questions))


def test_blocks_change_nothing_but_memory(monkeypatch):
    """One block or many: the same number of draws, and the same distribution."""
    generator = np.random.default_rng(1)
    ours, theirs = random_answers(generator, chance=0.8), random_answers(generator)
    whole = draw_differences(ours, theirs, draws=4001)
    monkeypatch.setattr(bootstrap, "LARGEST_BLOCK", 90)
    blocks = draw_differences(ours, theirs, draws=4001)
    assert len(whole) == len(blocks) == 4001
    assert whole.mean() == pytest.approx(blocks.mean(), abs=0.02)
    assert whole.std() == pytest.approx(blocks.std(), rel=0.1)


def test_same_seed_same_interval(make_runs):
    generator = np.random.default_rng(2)
    runs = [list(make_runs(name, points=random_answers(generator).points).values()) for name in ("moka", "lora")]
    assert bootstrap_interval(*runs) == bootstrap_interval(*runs)
    assert bootstrap_interval(*runs) != bootstrap_interval(*runs, seed=1, draws=300)


def test_questions_are_paired_by_id(make_runs):
    """A method against its own answers in another order: no draw may see a difference."""
    ours, theirs = ([make_runs(name, points=[[1, 0, 0, 1, 1, 0]])[0]] for name in ("moka", "lora"))
    lines = (theirs[0].folder / "answers.jsonl").read_text().splitlines()
    (theirs[0].folder / "answers.jsonl").write_text("\n".join(reversed(lines)) + "\n")
    assert bootstrap_interval(ours, theirs) == (0.0, 0.0)


def test_questions_of_one_id_are_several(make_runs):
    """As of data whose ids name pictures: each question counts, as it does in the score."""
    runs = [make_runs(name, points=[points])[0] for name, points in (("moka", [1, 0, 1]), ("lora", [0, 0, 1]))]
    for run in runs:
        path = run.folder / "answers.jsonl"
        path.write_text(path.read_text().replace('"q1"', '"q0"').replace('"q2"', '"q0"'))
    ours, theirs = pair_answers([runs[0]], [runs[1]])
    assert (ours.points.tolist(), theirs.points.tolist()) == ([[1, 0, 1]], [[0, 0, 1]])


def test_answers_hold_any_character(make_runs):
    """U+2028 and U+0085 end a line for `str.splitlines`, not in JSON lines."""
    [run] = make_runs("moka", points=[[1, 0]]).values()
    path = run.folder / "answers.jsonl"
    path.write_text(path.read_text().replace('"q1"', '"q\u2028\x851"'))
    assert list(run.points) == [("q0", 0), ("q\u2028\x851", 0)]


def test_other_questions_are_refused(make_runs):
    with pytest.raises(ValueError, match="cannot be paired: expected the same questions, got 2 and 3 with 2"):
        pair_answers([make_runs("moka", points=[[1, 0]])[0]], [make_runs("lora", points=[[1, 0, 1]])[0]])


def test_seeds_with_questions_of_their_own(make_runs):
    """Seed 1 was asked one question more: it weighs nothing in seed 0."""
    ours = [make_runs("moka", points=[[1, 1]])[0], make_runs("moka", points=[[1, 1, 1]])[0]]
    theirs = [make_runs("lora", points=[[0, 1]])[0], make_runs("lora", points=[[0, 1, 0]])[0]]
    one, _ = pair_answers(ours, theirs)
    assert one.weights.tolist() == [[1, 1, 0], [1, 1, 1]]


def simulated(generator, seeds, questions, gap):
    """Answers of two methods, `gap` apart over all questions there could be; each finds other questions hard."""
    hard = generator.normal(0, 0.2, (2, 1, questions))
    wander = generator.normal(0, 0.03, (2, seeds, 1))
    chances = 0.5 + np.array([gap, 0.0])[:, None, None] + hard + wander
    points = (generator.random(chances.shape) < chances).astype(float)
    return Answers(points[0], np.ones_like(points[0])), Answers(points[1], np.ones_like(points[1]))


def test_interval_covers_other_questions_which_the_one_over_seeds_does_not():
    generator = np.random.default_rng(3)
    hits, hits_of_t, trials = 0, 0, 300
    for trial in range(trials):
        ours, theirs = simulated(generator, 6, 60, gap=0.1)
        low, high = np.quantile(draw_differences(ours, theirs, draws=300, seed=trial), (0.025, 0.975))
        hits += low <= 0.1 <= high
        low, high = paired_t((ours.points - theirs.points).mean(axis=1).tolist())[0]
        hits_of_t += low <= 0.1 <= high
    assert 0.93 <= hits / trials < 1.0
    assert hits_of_t / trials < 0.85
