"""Decodes images, recordings and videos; every failure names the file and what to do about it."""

from moka_peft.data.media.audio import load_audio, resample
from moka_peft.data.media.images import load_image
from moka_peft.data.media.loading import load_media, load_medium
from moka_peft.data.media.opening import existing
from moka_peft.data.media.options import MediaOptions
from moka_peft.data.media.video import load_video

__all__ = [
    "MediaOptions",
    "existing",
    "load_audio",
    "load_image",
    "load_media",
    "load_medium",
    "load_video",
    "resample",
]
