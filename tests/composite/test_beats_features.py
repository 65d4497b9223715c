"""BEATs' features equal Kaldi's filter bank, written here as loops; padding and errors."""

import math
import wave
from functools import cache
from pathlib import Path

import numpy as np
import pytest
import torch

from moka_peft.composite.beats import BeatsFeatureExtractor

SPEECH = Path(__file__).parents[3] / "shared" / "data" / "fsdd"
RATE, FRAME, HOP, FFT, BINS = 16_000, 400, 160, 512, 128


@cache
def kaldi_filters() -> np.ndarray:
    """Triangles that are even on the mel scale from 20 Hz to 8000 Hz: [bins, frequencies below the highest]."""

    def mel(hertz: float) -> float:
        return 1127.0 * math.log(1.0 + hertz / 700.0)

    step = (mel(RATE / 2) - mel(20.0)) / (BINS + 1)
    filters = np.zeros((BINS, FFT // 2))
    for bin_index in range(BINS):
        left = mel(20.0) + bin_index * step
        centre, right = left + step, left + 2 * step
        for frequency in range(FFT // 2):
            place = mel(frequency * RATE / FFT)
            if left < place < right:
                rising = place <= centre
                filters[bin_index, frequency] = (place - left if rising else right - place) / step
    return filters


@cache
def fourier() -> np.ndarray:
    places = np.arange(FFT // 2)[:, None] * np.arange(FRAME)[None] / FFT
    return np.exp(-2j * np.pi * places)


def kaldi_fbank(samples: np.ndarray) -> np.ndarray:
    """Log mel energies of 16-bit samples, frame by frame: [frames, bins]."""
    window = np.array([(0.5 - 0.5 * math.cos(2 * math.pi * n / (FRAME - 1))) ** 0.85 for n in range(FRAME)])
    rows = []
    for start in range(0, len(samples) - FRAME + 1, HOP):
        frame = samples[start : start + FRAME].astype(np.float64)
        frame = frame - frame.mean()
        sharp = np.array([frame[n] - 0.97 * frame[max(n - 1, 0)] for n in range(FRAME)])
        power = np.abs(fourier() @ (sharp * window)) ** 2
        rows.append([math.log(max(energy, 2.0**-23)) for energy in kaldi_filters() @ power])
    return np.array(rows)


def error(samples: np.ndarray) -> float:
    """The largest difference of log mel energies from the loops, for a waveform of 16-bit values."""
    features = BeatsFeatureExtractor()(samples / 2**15, sampling_rate=RATE)["input_features"][0]
    ours = features.astype(np.float64) * (2 * 6.55582) + 15.41663
    theirs = kaldi_fbank(samples)
    assert ours.shape == theirs.shape
    return np.abs(ours - theirs).max()


def at_16_khz(path: Path) -> np.ndarray:
    """A recording of 8 kHz at twice the rate, through its spectrum, as 16-bit values."""
    with wave.open(str(path)) as file:
        assert file.getframerate() == RATE // 2
        samples = np.frombuffer(file.readframes(file.getnframes()), dtype=np.int16)
    return np.round(2 * np.fft.irfft(np.fft.rfft(samples), 2 * len(samples))).clip(-(2**15), 2**15 - 1)


def waves() -> dict[str, np.ndarray]:
    random, time = np.random.default_rng(0), np.arange(RATE) / RATE
    return {
        "noise": random.normal(0, 3000, RATE),
        "chirp": 20_000 * np.sin(2 * np.pi * (100 + 3500 * time) * time),
        "quiet": np.round(random.normal(0, 1, RATE)),
        "silence": np.zeros(RATE),
        "clipped": (60_000 * np.sin(2 * np.pi * 440 * time)).clip(-(2**15), 2**15 - 1),
        "offset": 8000 + random.normal(0, 100, 2801),
    }


@pytest.mark.parametrize("name", waves())
def test_fbank_equals_kaldis_on_synthesised_waves(name):
    assert error(np.round(waves()[name])) < 1e-4


def test_fbank_equals_kaldis_on_speech():
    paths = [path for path in sorted(SPEECH.glob("*.wav"))[::20]]
    if not paths:
        pytest.skip("the spoken digits are not beside this checkout")
    assert max(error(at_16_khz(path)) for path in paths) < 1e-4


def test_one_or_several_waveforms_in_any_form_give_the_same():
    extract, several = BeatsFeatureExtractor(), np.random.default_rng(0).normal(0, 0.1, (2, 4000))
    expected = extract(several, return_tensors="pt")["input_features"]
    assert expected.shape == (2, 23, 128) and expected.dtype == torch.float32
    for form in (several.tolist(), list(several), torch.from_numpy(several), list(torch.from_numpy(several))):
        assert torch.equal(extract(form, return_tensors="pt")["input_features"], expected)
    one = extract(several[1], sampling_rate=RATE, return_tensors="np")["input_features"]
    assert np.array_equal(one, expected[1:].numpy())


def test_short_waveforms_are_padded_with_silence():
    extract = BeatsFeatureExtractor()
    short, long = np.full(3000, 0.1), np.full(4000, 0.2)
    padded = np.pad(short, (0, 1000))
    expected = extract([padded, long], return_tensors="np")["input_features"]
    for options in ({}, {"padding": "longest"}, {"padding": "max_length", "max_length": 4000}):
        assert np.array_equal(extract([short, long], return_tensors="np", **options)["input_features"], expected)
    cut = extract([short, long], padding="max_length", max_length=3000, truncation=True, return_tensors="np")
    assert np.array_equal(cut["input_features"], extract([short, long[:3000]], return_tensors="np")["input_features"])
    each = extract([short, long], padding=False)["input_features"]
    assert [len(features) for features in each] == [17, 23]


@pytest.mark.parametrize(
    ("samples", "options", "message"),
    [
        (2799, {}, "`raw_speech` 0 is too short: expected at least 2800 samples, .* 16 frames, got 2799"),
        (4000, {"sampling_rate": 8000}, "`sampling_rate` is wrong: expected 16000 Hz, got 8000"),
        (4000, {"padding": "max_length", "max_length": 3000}, "`raw_speech` 0 is too long: .* 3000 samples, got 4000"),
        (4000, {"padding": "max_length"}, "`max_length` is missing"),
        (0, {}, "`raw_speech` 0 is no waveform: expected .samples., got shape .0."),
        ((1, 2, 4000), {}, "`raw_speech` 0 is no waveform"),
    ],
)
def test_what_gives_no_features_is_refused(samples, options, message):
    with pytest.raises(ValueError, match=message):
        BeatsFeatureExtractor()(np.zeros(samples), **options)


def test_the_shortest_waveform_fills_one_patch():
    assert BeatsFeatureExtractor()(np.zeros(2800), return_tensors="pt")["input_features"].shape == (1, 16, 128)
