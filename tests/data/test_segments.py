"""Pieces of long recordings: where they lie, and that a processor hears them."""

from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
import torch

from moka_peft.composite import tiny_avt_config, tiny_avt_processor
from moka_peft.data import Collator, MediaOptions, load_samples
from moka_peft.data.generated import write_generated
from moka_peft.data.media.segments import spread_segments


def pieces_one_by_one(waveform: np.ndarray, count: int, seconds: float, rate_hz: int) -> np.ndarray:
    """The rule in exact numbers, sample by sample."""
    size, pieces = round(seconds * rate_hz), []
    for k in range(count):
        start = round((Fraction(k * len(waveform), rate_hz * count) + Fraction(1, 2) - Fraction(seconds) / 2) * rate_hz)
        pieces.append([waveform[i] if 0 <= i < len(waveform) else 0.0 for i in range(start, start + size)])
    return np.array(pieces, dtype=np.float32)


@pytest.mark.parametrize("samples", [1, 90, 999, 1000, 6000])
@pytest.mark.parametrize(("count", "seconds"), [(1, 1.0), (3, 2.0), (10, 2.0), (4, 0.5)])
def test_pieces_are_those_of_the_rule(samples: int, count: int, seconds: float):
    waveform = np.random.default_rng(0).standard_normal(samples).astype(np.float32)
    np.testing.assert_array_equal(
        spread_segments(waveform, count, seconds, 100), pieces_one_by_one(waveform, count, seconds, 100)
    )


def test_a_minute_and_ten_seconds_are_heard_as_moka_does():
    ramp = np.arange(6000, dtype=np.float32) / 100 + 1  # second + 1, so that silence is seen
    minute = spread_segments(ramp, 10, 2.0, 100)
    assert minute.shape == (10, 200) and minute.dtype == np.float32
    assert (minute[0, :50] == 0).all() and minute[0, 50] == 1  # from -0.5 on
    np.testing.assert_allclose(minute[1:, 0] - 1, [5.5 + 6 * k for k in range(9)], atol=1e-4)
    np.testing.assert_array_equal(spread_segments(ramp[:1000], 10, 1.0, 100).reshape(-1), ramp[:1000])


@pytest.fixture(scope="module")
def samples(tmp_path_factory: pytest.TempPathFactory):
    folder: Path = tmp_path_factory.mktemp("avqa")
    write_generated("music_avqa", folder, samples=2)
    return load_samples({"name": "music_avqa", "folder": str(folder)})


@pytest.mark.parametrize("packing", [False, True])
def test_a_processor_hears_as_many_pieces_and_sees_as_many_frames(samples, packing: bool):
    processor, options = tiny_avt_processor(), MediaOptions(video_frames=10, audio_segments=7)
    packed = {"packing": True, "model_config": tiny_avt_config(), "max_length": 4000} if packing else {}
    batch = Collator(processor, media=options, **packed)(list(samples))
    heard = (batch["input_ids"] == processor.tokenizer.convert_tokens_to_ids(processor.audio_token)).sum()
    assert len(batch["input_features"]) == 2 * 7 and heard == 2 * 7 * processor.tokens_per_segment
    assert len(batch["pixel_values_videos"]) == 2 * 10


def test_the_pieces_are_what_the_feature_extractor_gets(samples):
    processor, options = tiny_avt_processor(), MediaOptions(audio_segments=3)
    collator = Collator(processor, media=options)
    (waveform,) = Collator(processor)._load(samples[0], "audio", 16_000)
    pieces = spread_segments(waveform, 3, processor.segment_seconds, 16_000)
    expected = processor.feature_extractor(
        list(pieces), sampling_rate=16_000, return_tensors="pt", padding="max_length", max_length=pieces.shape[1]
    )["input_features"]
    torch.testing.assert_close(collator([samples[0]])["input_features"], expected)


def test_a_processor_that_hears_recordings_whole_is_refused():
    processor = tiny_avt_processor()
    processor.segment_seconds = None
    with pytest.raises(ValueError, match="`audio_segments` is 10, but CompositeProcessor takes recordings whole"):
        Collator(processor, media=MediaOptions(audio_segments=10))
    Collator(processor)
