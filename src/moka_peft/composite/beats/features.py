"""What a BEATs encoder reads: Kaldi's log mel spectrogram of a waveform, with BEATs' normalisation."""

import warnings
from collections.abc import Sequence
from typing import Any

import numpy as np
from transformers import BatchFeature, SequenceFeatureExtractor
from transformers.audio_utils import mel_filter_bank, optimal_fft_length, spectrogram_batch, window_function

FRAME_SECONDS, HOP_SECONDS = 0.025, 0.01
LOWEST_HZ, PREEMPHASIS = 20.0, 0.97
POWER_FLOOR = float(np.finfo(np.float32).eps)
SAMPLE_SCALE = 2**15
"""Kaldi's samples are 16-bit integers, the waveforms here lie in [-1, 1]."""


class BeatsFeatureExtractor(SequenceFeatureExtractor):
    """Turns mono waveforms into `input_features` [N, frames, bins], a frame each 10 ms.

    Kaldi's filter bank (25 ms Povey windows inside the waveform, no dither, DC removed, preemphasis 0.97, power),
    then (x - mean) / (2 * std). `feature_size` is the number of bins and `min_frames` that of a patch. `mean` and
    `std` are what BEATs was trained with on AudioSet.
    """

    model_input_names = ["input_features"]

    def __init__(
        self,
        feature_size: int = 128,
        sampling_rate: int = 16_000,
        padding_value: float = 0.0,
        mean: float = 15.41663,
        std: float = 6.55582,
        min_frames: int = 16,
        **kwargs: Any,
    ):
        super().__init__(feature_size=feature_size, sampling_rate=sampling_rate, padding_value=padding_value, **kwargs)
        self.mean, self.std, self.min_frames = mean, std, min_frames
        frame = self._samples(FRAME_SECONDS)
        self.window = window_function(frame, "povey", periodic=False)
        self.mel_filters = _mel_filters(feature_size, optimal_fft_length(frame), sampling_rate)

    def __call__(
        self,
        raw_speech: Any,
        *,
        sampling_rate: int | None = None,
        padding: bool | str = True,
        max_length: int | None = None,
        truncation: bool = False,
        pad_to_multiple_of: int | None = None,
        return_tensors: str | None = None,
        **_: Any,
    ) -> BatchFeature:
        """Features of one waveform or a list of them, which silence pads to one length (BEATs knows no mask).

        `padding` and `truncation` are those of any feature extractor: `max_length` is in samples. Raises
        ValueError for a sampling rate other than the encoder's, a waveform longer than the length to pad to, and
        one with too few frames for a patch once padded.
        """
        if sampling_rate not in (None, self.sampling_rate):
            raise ValueError(
                f"`sampling_rate` is wrong: expected {self.sampling_rate} Hz, got {sampling_rate}. Resample first."
            )
        waves = _as_waveforms(raw_speech)
        if padding == "max_length" and max_length is None:
            raise ValueError("`max_length` is missing: padding to it needs a number of samples. Give it.")
        columns = BatchFeature({"input_features": [wave[:, None] for wave in waves]})
        padded = self.pad(
            columns,
            padding=padding,
            max_length=max_length,
            truncation=truncation,
            pad_to_multiple_of=pad_to_multiple_of,
            return_tensors="np" if padding else None,
        )
        waves = [np.asarray(wave)[:, 0] for wave in padded["input_features"]]
        self._check_lengths(waves, max_length if padding == "max_length" and pad_to_multiple_of is None else None)
        return BatchFeature({"input_features": self._fbank(waves)}, tensor_type=return_tensors)

    def _fbank(self, waves: list[np.ndarray]) -> list[np.ndarray]:
        """Normalised log mel energies of each waveform: [frames, bins]."""
        frame = len(self.window)
        spectrograms = spectrogram_batch(
            [wave * np.float32(SAMPLE_SCALE) for wave in waves],
            self.window,
            frame_length=frame,
            hop_length=self._samples(HOP_SECONDS),
            fft_length=optimal_fft_length(frame),
            power=2.0,
            center=False,
            preemphasis=PREEMPHASIS,
            remove_dc_offset=True,
            mel_filters=self.mel_filters,
            mel_floor=POWER_FLOOR,
            log_mel="log",
        )
        return [((bins.T - self.mean) / (2 * self.std)).astype(np.float32) for bins in spectrograms]

    def _check_lengths(self, waves: list[np.ndarray], max_length: int | None) -> None:
        fewest = len(self.window) + (self.min_frames - 1) * self._samples(HOP_SECONDS)
        for index, wave in enumerate(waves):
            if len(wave) < fewest:
                raise ValueError(
                    f"`raw_speech` {index} is too short: expected at least {fewest} samples, which make a patch of "
                    f"{self.min_frames} frames, got {len(wave)}. Pad to a `max_length` of as many."
                )
            if max_length is not None and len(wave) > max_length:
                raise ValueError(
                    f"`raw_speech` {index} is too long: expected at most `max_length` {max_length} samples, got "
                    f"{len(wave)}. Cut it, or set `truncation`."
                )

    def _samples(self, seconds: float) -> int:
        return round(seconds * self.sampling_rate)


def _mel_filters(bins: int, fft_length: int, sampling_rate: int) -> np.ndarray:
    """Kaldi's triangles, [frequencies, bins]: with 128 bins the lowest lies between two frequencies and stays empty.

    transformers warns of such a bin; BEATs was trained with it.
    """
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="At least one mel filter has all zero values")
        return mel_filter_bank(
            num_frequency_bins=fft_length // 2 + 1,
            num_mel_filters=bins,
            min_frequency=LOWEST_HZ,
            max_frequency=sampling_rate / 2,
            sampling_rate=sampling_rate,
            mel_scale="kaldi",
            triangularize_in_mel_space=True,
        )


def _as_waveforms(raw_speech: Any) -> list[np.ndarray]:
    """A list of mono waveforms from one or several, as arrays, tensors or lists of numbers."""
    is_list = isinstance(raw_speech, Sequence) and len(raw_speech) > 0 and np.ndim(raw_speech[0]) > 0
    waves = [np.asarray(wave, dtype=np.float32) for wave in raw_speech] if is_list else _rows(raw_speech)
    for index, wave in enumerate(waves):
        if wave.ndim != 1 or wave.size == 0:
            raise ValueError(
                f"`raw_speech` {index} is no waveform: expected [samples], got shape {list(wave.shape)}. Mix several "
                f"channels down to one first."
            )
    return waves


def _rows(raw_speech: Any) -> list[np.ndarray]:
    array = np.asarray(raw_speech, dtype=np.float32)
    return list(array) if array.ndim > 1 else [array]
