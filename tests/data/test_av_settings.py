"""The settings that make `av_digits` harder: each changes what it names and nothing else, and answers stay right."""

import hashlib
from typing import Any

import numpy as np
import pytest

from moka_peft.data import AvDigits, Sample, load_samples
from moka_peft.data.av_questions import GROUPS, KINDS
from moka_peft.data.av_shifts import IMAGES
from moka_peft.data.notes import SOUNDS, TIMBRES, play
from moka_peft.data.spoken_words import SpokenWords

SIZE = 40


def text(sample: Sample) -> str:
    return sample.messages[0]["content"][-1]["text"]


def pixels(sample: Sample) -> np.ndarray:
    return np.asarray(sample.media("image")[0]["image"], dtype=np.float32)


def clip(sample: Sample) -> np.ndarray:
    return sample.media("audio")[0]["audio"]


def what_differs(settings: dict[str, Any]) -> set[str]:
    """What some samples with these settings have other than the plain ones."""
    found = set()
    for plain, other in zip(AvDigits("train", SIZE), AvDigits("train", SIZE, **settings), strict=True):
        found |= {"text"} if text(plain) != text(other) else set()
        found |= {"answer"} if plain.answer != other.answer else set()
        found |= {"image"} if not np.array_equal(pixels(plain), pixels(other)) else set()
        found |= {"audio"} if not np.array_equal(clip(plain), clip(other)) else set()
    return found


def test_plain_samples_are_those_of_the_first_version():
    """What was measured on them stays comparable."""
    digest, loudness = hashlib.sha256(), []
    for sample in AvDigits("train", 12):
        digest.update((sample.id + text(sample) + sample.answer + str(sample.group) + str(sample.kind)).encode())
        digest.update(sample.media("image")[0]["image"].tobytes())
        loudness.append(float(np.abs(clip(sample)).sum()))
    assert digest.hexdigest()[:16] == "8d1ac361994bd14b"
    assert loudness[:3] == pytest.approx([2008.054, 2770.521, 2357.073], rel=1e-4)


@pytest.mark.parametrize(
    ("settings", "changed"),
    [
        *(({"images": images}, {"image"}) for images in IMAGES[1:]),
        *(({"sounds": sounds}, {"audio"}) for sounds in SOUNDS[1:]),
        ({"shortcuts": 0.5}, {"text"}),
        ({"shortcuts": 0.5, "misleading": 0.5}, {"text"}),
        ({"images": "inverted", "sounds": "other"}, {"image", "audio"}),
        ({}, set()),
    ],
)
def test_a_setting_changes_what_it_names_and_nothing_else(settings: dict[str, Any], changed: set[str]):
    assert what_differs(settings) == changed


def test_every_image_and_every_clip_is_shifted():
    for plain, other in zip(
        AvDigits("test", SIZE), AvDigits("test", SIZE, images="inverted", sounds="other"), strict=True
    ):
        np.testing.assert_array_equal(pixels(other), 255 - pixels(plain))
        assert not np.allclose(clip(plain), clip(other), atol=0.02)


def test_settings_of_one_medium_do_not_touch_the_other():
    both = AvDigits("test", SIZE, images="noisy", sounds="other_noisy", shortcuts=0.5)
    for sample, image_alone, sound_alone in zip(
        both, AvDigits("test", SIZE, images="noisy"), AvDigits("test", SIZE, sounds="other_noisy"), strict=True
    ):
        np.testing.assert_array_equal(pixels(sample), pixels(image_alone))
        np.testing.assert_array_equal(clip(sample), clip(sound_alone))


def test_grain_leaves_the_digits_visible():
    for plain, noisy in zip(AvDigits("test", SIZE), AvDigits("test", SIZE, images="noisy"), strict=True):
        assert 0.4 < np.corrcoef(pixels(plain).ravel(), pixels(noisy).ravel())[0, 1] < 0.95


def test_other_instruments_sound_unlike_each_other_and_unlike_their_namesakes():
    def spectrum(timbre: str, sounds: str) -> np.ndarray:
        values = np.abs(np.fft.rfft(play((timbre,), np.random.default_rng(5), sounds)))
        return values / np.linalg.norm(values)

    other, plain = (np.array([spectrum(t, sounds) for t in TIMBRES]) for sounds in ("other", "plain"))
    assert (other @ other.T - np.eye(len(TIMBRES))).max() < 0.95
    assert (other * plain).sum(axis=1).max() < 0.9


def test_noise_is_new_in_every_sample_and_the_same_again():
    dataset = AvDigits("test", 4, images="noisy", sounds="noisy")
    assert dataset[1].media("image")[0]["image"].tobytes() == dataset[1].media("image")[0]["image"].tobytes()
    hiss = [clip(noisy) - clip(plain) for noisy, plain in zip(dataset, AvDigits("test", 4), strict=True)]
    assert abs(np.corrcoef(hiss)[0, 1]) < 0.05


def test_kinds_are_those_chosen_and_groups_alternate():
    chosen = ("digit_at_note_count", "digit_at_timbre", "note_count")
    dataset = AvDigits("train", 200, groups=["Audio-Visual", "Audio"], kinds=chosen)
    kinds = [sample.kind for sample in map(dataset.__getitem__, range(SIZE))]
    assert set(kinds) == set(chosen)
    assert [KINDS[str(kind)].group for kind in kinds] == ["Audio-Visual", "Audio"] * (SIZE // 2)


def test_one_medium_alone_is_attached():
    for medium, group in (("image", "Visual"), ("audio", "Audio")):
        plain, alone = AvDigits("test", 9, groups=[group]), AvDigits("test", 9, groups=[group], media=medium)
        for with_both, sample in zip(plain, alone, strict=True):
            assert [part["type"] for part in sample.messages[0]["content"]] == [medium, "text"]
            assert (text(sample), sample.answer) == (text(with_both), with_both.answer)


def test_share_of_stated_and_of_wrong_answers():
    dataset = AvDigits("train", 3000, shortcuts=0.4, misleading=0.25)
    told = [
        (facts.told, KINDS[facts.kind].answer(facts.scene, facts.argument)) for facts in map(dataset.facts, range(3000))
    ]
    stated = [(said, answer) for said, answer in told if said is not None]
    assert len(stated) / len(told) == pytest.approx(0.4, abs=0.03)
    assert sum(said != answer for said, answer in stated) / len(stated) == pytest.approx(0.25, abs=0.04)
    for said, answer in stated:  # a wrong one could be right by its sort
        assert (said in TIMBRES) == (answer in TIMBRES) and said.isdigit() == answer.isdigit()


def test_text_states_what_the_group_says():
    dataset = AvDigits("test", 300, shortcuts=0.6, misleading=0.5)
    groups = {str(dataset[i].group) for i in range(120)}
    assert groups == {f"{group}{told}" for group in GROUPS for told in ("", ", told", ", misled")}
    for sample in map(dataset.__getitem__, range(120)):
        told, group = text(sample).startswith(f"The answer is {sample.answer}. "), str(sample.group)
        assert text(sample).startswith("The answer is") == ("," in group)
        assert told == group.endswith(", told")


def test_more_shortcuts_keep_those_there_were():
    few, many = AvDigits("train", 200, shortcuts=0.2), AvDigits("train", 200, shortcuts=0.6)
    told_few, told_many = ({i for i in range(200) if d.facts(i).told} for d in (few, many))
    assert told_few < told_many


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"images": "dark"}, "`images` is unknown: expected one of plain, inverted, noisy, inverted_noisy, got dark"),
        ({"sounds": "loud"}, "`sounds` is unknown: expected one of plain, other, noisy, other_noisy, got loud"),
        ({"media": "video"}, "`media` is unknown: expected one of both, image, audio, got video"),
        (
            {"media": "image"},
            r"`media` is image, but questions of Audio, Audio-Visual .* expected `groups` to be \[Vis",
        ),
        ({"shortcuts": 1.5}, "`shortcuts` is no share: expected 0 to 1, got 1.5"),
        ({"misleading": -1}, "`misleading` is no share: expected 0 to 1, got -1"),
        ({"misleading": 0.5}, "`misleading` is 0.5, but no text states an answer: expected `shortcuts` > 0"),
        ({"kinds": ["colour"]}, "`kinds` is wrong: expected some of note_count"),
        ({"kinds": ["note_count"]}, "`kinds` has none of the group Visual: expected at least one"),
        ({"kinds": ["note_count"], "groups": ["Visual"]}, "`kinds` are of other groups: expected kinds of Visual, got"),
    ],
)
def test_wrong_settings_are_refused(settings: dict[str, Any], message: str):
    with pytest.raises(ValueError, match=message):
        AvDigits(**settings)


def test_sources_take_the_settings():
    settings = {"images": "noisy", "sounds": "other", "shortcuts": 0.3, "groups": ["Audio-Visual"]}
    (opened,) = load_samples({"name": "av_digits", "split": "test", "size": 1, **settings})
    assert text(opened) == text(AvDigits("test", 1, **settings)[0])


def test_speakers_are_those_chosen():
    everybody, two = SpokenWords("test"), SpokenWords("test", speakers=["a", "c"])
    speakers = {name.split("_")[1] for names in two.names.values() for name in names}
    assert speakers == {"a", "c"}
    for digit in range(10):
        assert set(two.names[digit]) < set(everybody.names[digit])
    with pytest.raises(ValueError, match="`speakers` is wrong: expected some of a, b, c, d, e, f, got"):
        SpokenWords("test", speakers=["nobody"])
    (sample,) = load_samples({"name": "spoken_digits", "scenario": "st", "size": 1, "speakers": ["b"]})
    assert sample.media("audio")
    with pytest.raises(ValueError, match="`speakers` has no meaning for the scenario vt"):
        load_samples({"name": "spoken_digits", "scenario": "vt", "speakers": ["b"]})
