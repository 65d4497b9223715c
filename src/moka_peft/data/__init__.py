"""Samples, dataset formats, media decoding and the collator."""

from moka_peft.data.av_digits import AvDigits
from moka_peft.data.collator import Collator
from moka_peft.data.media import MediaOptions, load_audio, load_image, load_medium, load_video
from moka_peft.data.samples import Sample
from moka_peft.data.skipping import BadSample, SkippingCollator, merge_skipped
from moka_peft.data.sources import load_samples
from moka_peft.data.spoken_digits import SpokenDigits

__all__ = [
    "AvDigits",
    "BadSample",
    "Collator",
    "MediaOptions",
    "Sample",
    "SkippingCollator",
    "SpokenDigits",
    "load_audio",
    "load_image",
    "load_medium",
    "load_samples",
    "load_video",
    "merge_skipped",
]
