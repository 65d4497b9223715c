"""How long a recipe's samples are, before one of them is there: media by the recipe's numbers, text by estimate."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from moka_peft.training.plan.media import segment_seconds, tokens_of


@dataclass(frozen=True)
class Typical:
    """A dataset's usual sample: its media, the seconds of its recording, and tokens of text with the template's.

    reasoning: tokens more with `reasoning: true`, of an explanation of about a hundred words. Estimates, from what the
    datasets publish of themselves; LLaMA's tokenizer makes 1.3 tokens of a word.
    """

    kinds: tuple[str, ...]
    text: int
    seconds: float = 0.0
    reasoning: int = 0


TYPICAL = {
    "music_avqa": Typical(("video", "audio"), 120, 60, reasoning=150),
    "ave": Typical(("video", "audio"), 120, 10),
    "video_llava": Typical(("video",), 80),
    "audiocaps": Typical(("audio",), 60, 10),
    "llava_instruct": Typical(("image",), 180),
    "a_okvqa": Typical(("image",), 100),
    "librispeech": Typical(("audio",), 90, 12.5),
    "libri_sqa": Typical(("audio",), 110, 12.5),
    "av_digits": Typical(("image", "audio"), 40, 2),
    "spoken_digits": Typical(("image", "audio"), 40, 2),
}
UNKNOWN_TEXT, UNKNOWN_SECONDS = 150, 10.0
LONGEST_SECONDS = {"qwen2_audio": 30.0, "qwen2_5_omni_thinker": 300.0}  # of a recording, by their processors' settings
IMAGE_PIXELS, FRAME_PIXELS = 640 * 480, 640 * 360  # of photographs and of web videos, where a recipe sets no limit


@dataclass(frozen=True)
class SampleLength:
    """One sample. units: its images, frames and segments (or seconds) by kind. media: tokens of these. text: the rest.

    source: what it is a sample of; basis: where the numbers are from.
    """

    source: str
    basis: str
    units: Mapping[str, int] = field(default_factory=dict)
    media: Mapping[str, int] = field(default_factory=dict)
    text: int = 0

    @property
    def total(self) -> int:
        return sum(self.media.values()) + self.text


def sample_lengths(data: Any, model: Any, base: Any, tokens: int | None = None) -> list[SampleLength]:
    """A sample of each training source of a recipe. data, model: its sections. tokens: of a whole sample, if known.

    Raises ValueError where a model's tokens per media are unknown, or `tokens` are fewer than the media's.
    """
    sources = data.train if isinstance(data.train, list) else [data.train]
    longest = tokens or _longest(data.lengths_file())
    lengths = [_length(source, data.media, model, base) for source in sources]
    if longest is None:
        return lengths
    basis = "`--tokens`" if tokens else f"the longest in {data.lengths_file()}"
    return [_with_total(length, longest, basis) for length in lengths]


def _longest(index: str | None) -> int | None:
    """The length of the longest sample in an index that is there."""
    if index is None or not Path(index).is_file():
        return None
    with np.load(index, allow_pickle=False) as stored:
        return int(stored["lengths"].max())


def _with_total(length: SampleLength, total: int, basis: str) -> SampleLength:
    media = sum(length.media.values())
    if total <= media:
        raise ValueError(
            f"`--tokens` is too small: expected more than the {media} media tokens of a sample of {length.source}, got "
            f"{total}. Count media and text together."
        )
    return SampleLength(length.source, basis, length.units, length.media, total - media)


def _length(source: Any, media: Any, model: Any, base: Any) -> SampleLength:
    name = source.name or source.hub or str(source.path)
    known = TYPICAL.get(source.name)
    kinds = known.kinds if known else tuple(kind for kind in ("image", "audio") if _takes(base.config, kind))
    text = known.text + (known.reasoning if source.reasoning else 0) if known else UNKNOWN_TEXT
    kinds = tuple(kind for kind in kinds if _takes(base.config, kind))
    basis = "typical of the dataset" if known else "no dataset known here: one of each medium is assumed"
    seconds = min(known.seconds if known else UNKNOWN_SECONDS, media.max_audio_seconds or math.inf)
    count = _composite if hasattr(base, "embed_media") else _published
    found = {kind: count(kind, base, media, model, seconds) for kind in kinds}
    return SampleLength(
        name, basis, {k: units for k, (units, _) in found.items()}, {k: n for k, (_, n) in found.items()}, text
    )


def _takes(config: Any, kind: str) -> bool:
    ids = (getattr(config, f"{kind}_token_{form}", None) for form in ("id", "index"))
    return any(token is not None for token in ids)


def _composite(kind: str, base: Any, media: Any, model: Any, seconds: float) -> tuple[int, int]:
    """Images, frames or segments of a sample, and their tokens."""
    if kind != "audio":
        units = media.video_frames if kind == "video" else 1
        return units, units * tokens_of(base, kind, 0)
    length = segment_seconds(base.config, model.audio.segment_seconds if model.audio else 2.0)
    units = media.audio_segments or math.ceil(seconds / length)
    return units, units * tokens_of(base, kind, length)


def _published(kind: str, base: Any, media: Any, model: Any, seconds: float) -> tuple[int, int]:
    """The same for models with media of their own; an audio's units are seconds."""
    family = base.config.model_type
    if family not in FAMILIES or kind not in FAMILIES[family]:
        raise ValueError(
            f"the tokens that {family} makes of {kind} are not known here: expected one of {', '.join(FAMILIES)}. Run "
            "`moka validate` on the recipe where its processor is, and use a composite or these models here."
        )
    return FAMILIES[family][kind](base.config, media, seconds)


def _llava_image(config: Any, media: Any, seconds: float) -> tuple[int, int]:
    return 1, config.image_seq_length


def _qwen_image(config: Any, media: Any, seconds: float) -> tuple[int, int]:
    """A token per square of patches that are merged, at the image's own size."""
    return 1, _squares(config, min(IMAGE_PIXELS, media.max_image_pixels or IMAGE_PIXELS))


def _qwen_video(config: Any, media: Any, seconds: float) -> tuple[int, int]:
    """Two frames make one set of tokens."""
    squares = _squares(config, min(FRAME_PIXELS, media.max_video_pixels or FRAME_PIXELS))
    return media.video_frames, math.ceil(media.video_frames / config.vision_config.temporal_patch_size) * squares


def _squares(config: Any, pixels: int) -> int:
    side = config.vision_config.patch_size * config.vision_config.spatial_merge_size
    return max(round(pixels / side**2), 1)


def _qwen_audio(config: Any, media: Any, seconds: float) -> tuple[int, int]:
    """25 tokens a second, up to where the model's processor cuts a recording off."""
    seconds = min(seconds, LONGEST_SECONDS[config.model_type])
    return math.ceil(seconds), math.ceil(25 * seconds)


FAMILIES = {
    "llava": {"image": _llava_image},
    "qwen2_5_vl": {"image": _qwen_image, "video": _qwen_video},
    "qwen2_audio": {"audio": _qwen_audio},
    "qwen2_5_omni_thinker": {"image": _qwen_image, "video": _qwen_video, "audio": _qwen_audio},
}
"""Models with media of their own: per kind, the units of a sample and their tokens."""
