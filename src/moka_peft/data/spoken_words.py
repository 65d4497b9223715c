"""The spoken digits that `spoken_digits` is made of: recordings in a folder, or synthesised ones."""

import re
from collections import defaultdict
from collections.abc import Sequence
from functools import cache
from pathlib import Path

import numpy as np

from moka_peft.data.digit_strips import SPLITS
from moka_peft.data.formants import SAMPLE_RATE_HZ, VOICES, speak
from moka_peft.data.media import load_audio

WORD_SECONDS = 0.8
WORD_SAMPLES = int(WORD_SECONDS * SAMPLE_RATE_HZ)
_LONGEST_SAMPLES = int(0.72 * SAMPLE_RATE_HZ)
_FILE_NAME = re.compile(r"(\d)_([a-z]+)_(\d+)\.wav")
_SPLIT_OF_EIGHTH = {"align": (5, 6, 7, 0), "train": (1, 2), "test": (3, 4)}
_TAKES = 8


class SpokenWords:
    """The digits that one split may use, {digit: their names} in `names`; no recording is in two splits.

    folder: recordings named as in the Free Spoken Digit Dataset, `{digit}_{speaker}_{index}.wav`, which are split by
    their index (modulo 8); None: as many voices and takes, synthesised. speakers: whose recordings are used, by name,
    the synthesised ones being a to f; None: everybody's. Raises FileNotFoundError or ValueError where a folder lacks
    recordings of a digit.
    """

    def __init__(self, split: str, folder: str | Path | None = None, speakers: Sequence[str] | None = None):
        if split not in SPLITS:
            raise ValueError(f"`split` is unknown: expected one of {', '.join(SPLITS)}, got {split}.")
        self.folder = None if folder is None else Path(folder)
        self.names: dict[int, list[str]] = defaultdict(list)
        names = _names_in(self.folder) if self.folder else _synthesised_names()
        _check_speakers(speakers, {_parse(name)[1] for name in names})
        for name in names:
            digit, speaker, index = _parse(name)
            if (speakers is None or speaker in speakers) and index % 8 in _SPLIT_OF_EIGHTH[split]:
                self.names[digit].append(name)
        if missing := [digit for digit in range(10) if not self.names[digit]]:
            raise ValueError(
                f"`folder` has no recording of the digit {missing[0]} for the split {split}: {self.folder}. Expected "
                f"{missing[0]}_NAME_INDEX.wav with an index that is {_SPLIT_OF_EIGHTH[split]} modulo 8."
            )

    def waveform(self, name: str) -> np.ndarray:
        """One digit without the silence around it, at full loudness: float32 [at most 0.72 s] at 16 kHz."""
        return _trimmed(_recorded(self.folder / name) if self.folder else _synthesised(name))


def say(words: SpokenWords, names: tuple[str, ...], rng: np.random.Generator) -> np.ndarray:
    """Digits in order over faint noise, float32 [len(names) * WORD_SAMPLES]: one in every 0.8 s, each beginning
    somewhere in it, all of about the same loudness."""
    clip = rng.standard_normal(len(names) * WORD_SAMPLES, dtype=np.float32)
    clip *= 0.003
    loudness = rng.uniform(0.4, 0.8)
    for place, name in enumerate(names):
        wave = words.waveform(name)
        start = place * WORD_SAMPLES + int(rng.integers(WORD_SAMPLES - len(wave) + 1))
        clip[start : start + len(wave)] += wave * np.float32(loudness * rng.uniform(0.85, 1.15))
    return clip


def _check_speakers(speakers: Sequence[str] | None, known: set[str]) -> None:
    """Raises ValueError for a speaker who says nothing here, and for an empty list."""
    if speakers is not None and (not speakers or set(speakers) - known):
        raise ValueError(
            f"`speakers` is wrong: expected some of {', '.join(sorted(known))}, got {speakers}. Correct it."
        )


def _names_in(folder: Path) -> list[str]:
    if not folder.is_dir():
        raise FileNotFoundError(f"`folder` is no folder: {folder}. Give one with files like 7_jackson_5.wav.")
    names = sorted(path.name for path in folder.iterdir() if _FILE_NAME.fullmatch(path.name))
    if not names:
        raise FileNotFoundError(f"`folder` holds no recordings: expected files like 7_jackson_5.wav in {folder}.")
    return names


def _synthesised_names() -> list[str]:
    """Names as of recordings: six voices, eight takes."""
    voices = [chr(ord("a") + voice) for voice in range(len(VOICES))]
    return [f"{digit}_{voice}_{take}.wav" for digit in range(10) for voice in voices for take in range(_TAKES)]


def _parse(name: str) -> tuple[int, str, int]:
    """Digit, speaker and index of a recording."""
    digit, speaker, index = name.removesuffix(".wav").split("_")
    return int(digit), speaker, int(index)


@cache
def _recorded(path: Path) -> np.ndarray:
    return load_audio(path, SAMPLE_RATE_HZ)


@cache
def _synthesised(name: str) -> np.ndarray:
    """A voice says a digit; the same name, the same sound."""
    digit, speaker, take = _parse(name)
    voice = ord(speaker) - ord("a")
    return speak(digit, VOICES[voice], np.random.default_rng((digit, voice, take)))


def _trimmed(wave: np.ndarray) -> np.ndarray:
    """From where the wave first reaches a twentieth of its peak to where it last does, the peak being 1."""
    peak = float(np.abs(wave).max())
    loud = np.flatnonzero(np.abs(wave) > 0.05 * peak)
    margin = int(0.01 * SAMPLE_RATE_HZ)
    cut = wave[max(0, loud[0] - margin) : loud[-1] + margin][:_LONGEST_SAMPLES] if peak else wave[:_LONGEST_SAMPLES]
    return cut / max(peak, 1e-9)
