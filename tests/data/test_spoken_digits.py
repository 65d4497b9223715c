"""Written and spoken digits: the same from the same seed, splits apart, answers that follow from what is there."""

from collections import Counter, defaultdict
from pathlib import Path

import numpy as np
import pytest
import soundfile

from moka_peft.data import load_samples
from moka_peft.data.digit_questions import GROUPS, KINDS, MEDIA_OF, WORDS, Question, kinds_of
from moka_peft.data.digit_strips import SPLITS, digits
from moka_peft.data.formants import SAMPLE_RATE_HZ, VOICES, speak
from moka_peft.data.spoken_digits import SpokenDigits
from moka_peft.data.spoken_words import WORD_SAMPLES, SpokenWords, say

FSDD = Path(__file__).parents[3] / "shared" / "data" / "fsdd"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Recordings at 8 kHz, named as in the Free Spoken Digit Dataset, of which every one is another tone."""
    folder = tmp_path_factory.mktemp("recordings")
    for digit in range(10):
        for index in range(5, 13):
            wave = 0.3 * np.sin(np.arange(3200) * (0.05 + 0.03 * digit + 0.002 * index))
            soundfile.write(folder / f"{digit}_anna_{index}.wav", wave, 8000)
    (folder / "notes.txt").write_text("not a recording")
    return folder


def solve(question: Question) -> str:
    """The answer by another way than the dataset's: strings and loops over the digits as they stand."""
    own, n = question.digits[question.own], question.argument
    other = next((row for medium, row in question.digits.items() if medium != question.own), ())
    text, line = "".join(map(str, own)), "".join(map(str, other))
    pairs = list(zip(text, line, strict=False))
    found = {
        "place": lambda: text[n],
        "largest": lambda: sorted(text)[3],
        "smallest": lambda: sorted(text)[0],
        "parity_count": lambda: len([d for d in text if d in ("02468" if n == "even" else "13579")]),
        "presence": lambda: str(n) in text,
        "after": lambda: text.split(str(n))[1][0],
        "place_of_digit": lambda: len(text.split(str(n))[0]) + 1,
        "place_of_largest": lambda: len(text.split(sorted(text)[3])[0]) + 1,
        "larger_count": lambda: len([d for d in text if int(d) >= n + 1]),
        "comparison": lambda: text[n[0]] > text[n[1]],
        "common": lambda: next(d for d in text if d in line),
        "at_place_of_digit": lambda: next(b for a, b in pairs if a == str(n)),
        "at_place_of_largest": lambda: max(pairs)[1],
        "equal": lambda: pairs[n][0] == pairs[n][1],
    }[question.kind]()
    return {True: "yes", False: "no"}[found] if isinstance(found, bool) else WORDS[int(found)]


def request(sample) -> str:
    return "".join(part.get("text", "") for part in sample.messages[0]["content"])


@pytest.mark.parametrize("scenario", MEDIA_OF)
def test_answers_follow_from_the_facts(scenario: str):
    dataset, seen = SpokenDigits(scenario, "question", "test", 400), set()
    for index in range(400):
        facts = dataset.facts(index)
        assert facts.question is not None and tuple(facts.digits) == MEDIA_OF[scenario]
        assert facts.answer == solve(facts.question)
        assert facts.question.kind in kinds_of(scenario, GROUPS[index % 2])
        seen.add(facts.question.kind)
    assert seen == {kind for group in GROUPS for kind in kinds_of(scenario, group)} <= set(KINDS)


def test_questions_say_what_they_ask_for():
    """Every number and ordinal of the argument stands in the question, and which medium it is about."""
    for scenario in MEDIA_OF:
        for facts in map(SpokenDigits(scenario, size=300).facts, range(300)):
            question = facts.question
            assert question is not None and question.text == facts.request
            assert "{" not in question.text and "  " not in question.text
            ordinals = ("first", "second", "third", "fourth")
            if question.kind in ("place", "equal"):
                assert ordinals[question.argument] in question.text
            elif question.kind == "comparison":
                first, second = (question.text.index(ordinals[place]) for place in question.argument)
                assert first < second
            elif question.argument is not None:
                word = WORDS[question.argument] if isinstance(question.argument, int) else question.argument
                assert f" {word}" in question.text
            if question.kind != "equal":
                assert question.own in question.text or question.kind == "common"


def test_captions_name_the_digits_of_the_only_medium():
    for scenario, media in MEDIA_OF.items():
        dataset = SpokenDigits(scenario, "caption", "align", 40)
        for index in range(40):
            facts, sample = dataset.facts(index), dataset[index]
            [(medium, shown)] = facts.digits.items()
            assert medium == media[index % len(media)]
            kinds = {"written": "image", "spoken": "audio"}
            assert len(sample.media(kinds[medium])) == 1 and sum(len(sample.media(k)) for k in kinds.values()) == 1
            assert sample.answer == f"the {medium} digits are " + " ".join(WORDS[digit] for digit in shown)
            assert request(sample).endswith(f"Which digits are {medium}?")


def test_new_questions_cannot_be_guessed():
    """The most frequent answer of a kind is right for few questions; yes and no are equally frequent."""
    for scenario in MEDIA_OF:
        answers: dict[str, Counter] = defaultdict(Counter)
        for facts in map(SpokenDigits(scenario, size=1500).facts, range(1500)):
            assert facts.question is not None
            answers[facts.question.kind][facts.answer] += 1
        best = sum(counts.most_common(1)[0][1] for counts in answers.values()) / 1500
        assert best < 0.38
        for counts in answers.values():
            if "yes" in counts:
                assert 0.38 < counts["yes"] / counts.total() < 0.62


@pytest.mark.parametrize("recorded", [False, True])
def test_same_seed_same_samples_in_any_order(recorded: bool, folder: Path):
    where = folder if recorded else None
    once, again = (SpokenDigits("avt", size=size, seed=3, folder=where) for size in (8, 90))
    backwards = {index: again[index] for index in reversed(range(8))}
    for index, sample in enumerate(once):
        other = backwards[index]
        assert (sample.id, request(sample), sample.answer) == (other.id, request(other), other.answer)
        assert sample.media("image")[0]["image"].tobytes() == other.media("image")[0]["image"].tobytes()
        np.testing.assert_array_equal(sample.media("audio")[0]["audio"], other.media("audio")[0]["audio"])
    others = [SpokenDigits("avt", size=8, seed=4), SpokenDigits("avt", split="test", size=8, seed=3)]
    for dataset in (*others, SpokenDigits("avt", "caption", size=8, seed=3)):
        assert [dataset.facts(i).digits for i in range(8)] != [once.facts(i).digits for i in range(8)]


@pytest.mark.parametrize("recorded", [False, True])
def test_no_two_splits_share_an_image_or_a_recording(recorded: bool, folder: Path):
    where = folder if recorded else None
    names = {split: SpokenWords(split, where).names for split in SPLITS}
    sets = {split: {name for row in by_digit.values() for name in row} for split, by_digit in names.items()}
    assert sum(map(len, sets.values())) == len(set.union(*sets.values())) == (80 if recorded else 480)
    assert all(name.startswith(f"{digit}_") for by_digit in names.values() for digit in by_digit
               for name in by_digit[digit])  # fmt: skip
    images = {}
    for split in SPLITS:
        rows = [SpokenDigits("avt", split=split, size=300, folder=where).facts(i) for i in range(300)]
        assert {name for facts in rows for name in facts.recordings} <= sets[split]
        images[split] = {image for facts in rows for image in facts.images}
        for facts in rows:
            assert digits().labels[list(facts.images)].tolist() == list(facts.digits["written"])
            assert [int(name[0]) for name in facts.recordings] == list(facts.digits["spoken"])
    assert sum(map(len, images.values())) == len(set.union(*images.values()))


@pytest.mark.parametrize("recorded", [False, True])
def test_clip_says_one_digit_in_every_segment(recorded: bool, folder: Path):
    dataset = SpokenDigits("st", size=30, folder=folder if recorded else None)
    for index in range(30):
        (part,) = dataset[index].media("audio")
        clip = part["audio"]
        assert part["sample_rate_hz"] == SAMPLE_RATE_HZ and clip.dtype == np.float32
        assert clip.shape == (4 * WORD_SAMPLES,) and np.abs(clip).max() < 1
        assert (np.sqrt((clip.reshape(4, -1) ** 2).mean(axis=1)) > 0.02).all()


def test_recordings_are_heard_in_order(folder: Path):
    """Each segment correlates with the recording that the facts name, wherever in the segment that begins."""
    dataset, words = SpokenDigits("st", split="test", size=5, folder=folder), SpokenWords("test", folder)
    for index in range(5):
        segments = dataset[index].media("audio")[0]["audio"].reshape(4, -1)
        for segment, name in zip(segments, dataset.facts(index).recordings, strict=True):
            wave = words.waveform(name)
            match = np.correlate(segment, wave, "valid").max() / (np.linalg.norm(segment) * np.linalg.norm(wave))
            assert match > 0.95


def test_synthesised_digits_can_be_told_apart():
    """The nearest of other takes, by the spectrum of thirds of the word, is of the same digit."""

    def features(digit: int, voice: int, take: int) -> np.ndarray:
        wave = speak(digit, VOICES[voice], np.random.default_rng((digit, voice, take)))
        assert len(wave) <= 0.72 * SAMPLE_RATE_HZ and np.isfinite(wave).all() and np.abs(wave).max() == pytest.approx(1)
        thirds = [np.abs(np.fft.rfft(part, 4096)) for part in np.array_split(wave, 3)]
        bands = np.concatenate([[band.mean() for band in np.array_split(third[:1800], 40)] for third in thirds])
        return np.log(bands + 0.1)

    known = [(digit, features(digit, voice, take)) for digit in range(10) for voice in (0, 2, 4) for take in range(3)]
    right = 0
    for digit in range(10):
        for voice in (0, 2, 4):
            heard = features(digit, voice, 7)
            right += min(known, key=lambda pair: np.abs(pair[1] - heard).sum())[0] == digit
    assert right >= 28


def test_real_recordings_are_split_by_their_index():
    if not FSDD.is_dir():
        pytest.skip("the recordings are not beside this checkout")
    counts = {split: sum(map(len, SpokenWords(split, FSDD).names.values())) for split in SPLITS}
    assert counts == {"align": 240, "train": 120, "test": 120}
    words = SpokenWords("test", FSDD)
    assert {int(name.split("_")[2].split(".")[0]) for row in words.names.values() for name in row} == {11, 12}
    clip = say(words, tuple(row[0] for row in words.names.values()), np.random.default_rng(0))
    assert len(clip) == 10 * WORD_SAMPLES and (np.abs(clip.reshape(10, -1)).max(axis=1) > 0.2).all()


def test_a_recipe_opens_it(folder: Path):
    source = {"name": "spoken_digits", "scenario": "st", "task": "caption", "size": 3, "folder": str(folder)}
    samples = load_samples(source)
    assert len(samples) == 3 and samples[0].group == "caption"
    with pytest.raises(ValueError, match="unknown keys"):
        load_samples({"name": "spoken_digits", "groups": ["new"]})


def test_wrong_settings_are_named(folder: Path, tmp_path: Path):
    with pytest.raises(ValueError, match=r"`scenario` is unknown: expected one of avt, vt, st, got tv"):
        SpokenDigits("tv")
    with pytest.raises(ValueError, match=r"`task` is unknown: expected one of caption, question, got sing"):
        SpokenDigits(task="sing")
    with pytest.raises(ValueError, match=r"`split` is unknown: expected one of align, train, test, got dev"):
        SpokenDigits("st", split="dev")
    with pytest.raises(ValueError, match=r"`folder` has no meaning for the scenario vt"):
        SpokenDigits("vt", folder=folder)
    with pytest.raises(ValueError, match=r"`size` is too small"):
        SpokenDigits(size=0)
    with pytest.raises(IndexError, match="expected below 5, got 5"):
        SpokenDigits(size=5)[5]
    with pytest.raises(FileNotFoundError, match=r"`folder` is no folder: .*nowhere"):
        SpokenDigits("st", folder=tmp_path / "nowhere")
    with pytest.raises(FileNotFoundError, match="holds no recordings"):
        SpokenDigits("st", folder=tmp_path)
    soundfile.write(tmp_path / "0_anna_5.wav", np.ones(800), 8000)
    with pytest.raises(ValueError, match="no recording of the digit 1 for the split align"):
        SpokenDigits("st", split="align", folder=tmp_path)
