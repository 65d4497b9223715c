"""The dataset: the same from the same seed, splits apart, answers that follow from what is seen and heard."""

import sys
from collections import Counter, defaultdict

import numpy as np
import pytest

from moka_peft.data import AvDigits, Sample, load_samples
from moka_peft.data.av_digits import Facts
from moka_peft.data.av_questions import GROUPS, KINDS
from moka_peft.data.digit_strips import SPLITS, digits, images_of
from moka_peft.data.notes import MAX_NOTES, SAMPLE_RATE_HZ, SLOT_SAMPLES, TIMBRES, play


def question(sample: Sample) -> str:
    return sample.messages[0]["content"][-1]["text"]


def solve(facts: Facts) -> str:
    """The answer by another way than the dataset's: plain loops over what is seen and heard."""
    shown, played, n = list(facts.scene.digits), list(facts.scene.notes), facts.argument
    place_of_digit = next((i for i, digit in enumerate(shown) if digit == n), None)
    place_of_timbre = next((i for i, timbre in enumerate(played) if timbre == n), None)
    count = sum(1 for _ in played)
    return str(
        {
            "note_count": lambda: count,
            "timbre_at_position": lambda: played[n - 1],
            "last_timbre": lambda: played[count - 1],
            "timbre_count": lambda: sum(timbre == n for timbre in played),
            "timbre_position": lambda: 1 + place_of_timbre,
            "digit_at_position": lambda: shown[n - 1],
            "largest_digit": lambda: sorted(shown)[-1],
            "smallest_digit": lambda: sorted(shown)[0],
            "digit_count": lambda: sum(digit == n for digit in shown),
            "digit_position": lambda: 1 + place_of_digit,
            "digit_at_note_count": lambda: shown[count - 1],
            "digit_at_timbre": lambda: shown[place_of_timbre],
            "timbre_at_digit": lambda: played[place_of_digit],
            "count_equals_digit": lambda: "yes" if shown[n - 1] == count else "no",
        }[facts.kind]()
    )


def test_answers_follow_from_the_facts():
    dataset = AvDigits("test", 600)
    for index in range(len(dataset)):
        facts = dataset.facts(index)
        assert KINDS[facts.kind].answer(facts.scene, facts.argument) == solve(facts)
    assert {dataset.facts(index).kind for index in range(600)} == set(KINDS)


def test_questions_about_one_place_have_one_answer():
    """Where a digit or timbre is asked for its position, it occurs once; a note plays where one is asked for."""
    dataset = AvDigits("train", 600)
    for facts in map(dataset.facts, range(600)):
        if facts.kind in ("timbre_position", "digit_at_timbre"):
            assert facts.scene.notes.count(facts.argument) == 1
        if facts.kind in ("digit_position", "timbre_at_digit"):
            assert facts.scene.digits.count(facts.argument) == 1
        if facts.kind == "timbre_at_digit":
            assert facts.scene.digits.index(facts.argument) < len(facts.scene.notes)


def test_image_shows_the_digits_of_the_facts():
    """Each cell of the strip correlates with the image it was made from, and less with other digits."""
    dataset, own, others = AvDigits("test", 40), [], []
    for index in range(40):
        facts, sample = dataset.facts(index), dataset[index]
        labels = digits().labels[list(facts.images)]
        assert labels.tolist() == list(facts.scene.digits)
        strip = np.asarray(sample.media("image")[0]["image"], dtype=float)
        assert strip.shape == (32, 128)
        cells = np.stack(np.split(strip, 4, axis=1)).reshape(4, -1)
        shown = digits().cells[list(facts.images)].reshape(4, -1)
        correlation = np.corrcoef(cells, shown)[:4, 4:]
        own += np.diag(correlation).tolist()
        others += correlation[labels[:, None] != labels[None]].tolist()
    assert min(own) > 0.6 and np.mean(own) > np.mean(others) + 0.2


def test_clip_plays_the_notes_of_the_facts():
    """As many of the four slots hold sound as there are notes; the rest is faint noise."""
    dataset = AvDigits("train", 40)
    for index in range(40):
        (part,) = dataset[index].media("audio")
        clip = part["audio"]
        assert part["sample_rate_hz"] == SAMPLE_RATE_HZ and clip.dtype == np.float32 and abs(clip).max() < 1
        slots = clip[: MAX_NOTES * SLOT_SAMPLES].reshape(MAX_NOTES, -1)
        heard = np.sqrt((slots**2).mean(axis=1)) > 0.02
        notes = len(dataset.facts(index).scene.notes)
        assert heard.tolist() == [True] * notes + [False] * (MAX_NOTES - notes)


def test_timbres_sound_different():
    spectra = []
    for timbre in TIMBRES:
        clip = play((timbre,), np.random.default_rng(5))
        spectrum = np.abs(np.fft.rfft(clip))
        spectra.append(spectrum / np.linalg.norm(spectrum))
    similarity = np.array(spectra) @ np.array(spectra).T - np.eye(len(TIMBRES))
    assert similarity.max() < 0.95


def test_same_seed_same_samples_in_any_order():
    once, again = AvDigits("train", 12, seed=3), AvDigits("train", 500, seed=3)
    backwards = {index: again[index] for index in reversed(range(12))}
    for index, sample in enumerate(once):
        other = backwards[index]
        assert (sample.id, question(sample), sample.answer) == (other.id, question(other), other.answer)
        assert sample.media("image")[0]["image"].tobytes() == other.media("image")[0]["image"].tobytes()
        np.testing.assert_array_equal(sample.media("audio")[0]["audio"], other.media("audio")[0]["audio"])


def test_other_seeds_and_splits_give_other_samples():
    datasets = [AvDigits("train", 50), AvDigits("train", 50, seed=1), AvDigits("test", 50)]
    facts = [[dataset.facts(index).scene for index in range(50)] for dataset in datasets]
    assert facts[0] != facts[1] and facts[0] != facts[2]


def test_no_two_splits_share_an_image():
    pixels = digits().cells.reshape(len(digits().cells), -1)
    assert len(np.unique(pixels, axis=0)) == len(pixels)  # no image is in the source twice
    used = {split: set(np.concatenate(list(images_of(split).values())).tolist()) for split in SPLITS}
    assert sum(map(len, used.values())) == len(set.union(*used.values())) == 1797
    for split in SPLITS:
        dataset = AvDigits(split, 300)
        assert {image for i in range(300) for image in dataset.facts(i).images} <= used[split]


def test_groups_alternate_and_can_be_chosen():
    assert Counter(sample.group for sample in AvDigits("test", 9)) == dict.fromkeys(GROUPS, 3)
    only = load_samples({"name": "av_digits", "size": 4, "groups": ["Audio-Visual"]})
    assert {sample.group for sample in only} == {"Audio-Visual"}
    with pytest.raises(ValueError, match=r"`groups` is wrong: expected some of Audio, Visual, Audio-Visual"):
        AvDigits(groups=["Smell"])


def test_audio_visual_questions_cannot_be_guessed():
    """The most frequent answer of a kind is right for few questions, so accuracy shows understanding."""
    dataset, answers = AvDigits("test", 3000, groups=["Audio-Visual"]), defaultdict(Counter)
    for facts in map(dataset.facts, range(3000)):
        answers[facts.kind][solve(facts)] += 1
    best = sum(counts.most_common(1)[0][1] for counts in answers.values()) / 3000
    assert best < 0.30


def test_indexing():
    dataset = AvDigits("test", 5)
    assert [sample.id for sample in dataset[1:3]] == [dataset[1].id, dataset[-3].id]
    with pytest.raises(IndexError, match="expected below 5, got 5"):
        dataset[5]
    with pytest.raises(ValueError, match="`size` is too small: expected at least 1, got 0"):
        AvDigits(size=0)


def test_without_scikit_learn_the_extra_is_named(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setitem(sys.modules, "sklearn.datasets", None)
    digits.cache_clear()
    with pytest.raises(ImportError, match=r"pip install 'moka-peft\[demo\]'"):
        digits()
    digits.cache_clear()
