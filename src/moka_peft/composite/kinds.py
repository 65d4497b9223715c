"""The kinds of media a composite reads, the encoder that reads each, and what its tensors are called."""

from collections.abc import Iterable

MEDIA_PARTS = {"vision": ("image", "video"), "audio": ("audio",)}
"""The kinds that each encoder serves: a video is frames through the vision encoder."""

RAW_NAMES = {"image": "pixel_values", "video": "pixel_values_videos", "audio": "input_features"}

RESERVED = {"text", "vision", "visual", "other", *RAW_NAMES}


def media_parts(others: Iterable[str]) -> dict[str, tuple[str, ...]]:
    """Encoder -> the kinds it reads; every kind beyond images, video and audio has an encoder of its own name."""
    return MEDIA_PARTS | {kind: (kind,) for kind in others}


def encoder_of(kind: str) -> str:
    """The encoder that reads media of a kind."""
    return next((part for part, kinds in MEDIA_PARTS.items() if kind in kinds), kind)


def raw_name(kind: str) -> str:
    """The forward's keyword for the raw tensors of a kind; `<kind>_embeds` is their encoded form."""
    return RAW_NAMES.get(kind, f"{kind}_values")


def check_name(kind: str) -> None:
    """Raises ValueError for a name that a kind of media cannot have."""
    if not kind.isidentifier() or kind in RESERVED:
        raise ValueError(
            f"`{kind}` cannot name another kind of media: expected a word such as 'series' or 'depth', and none of "
            f"{sorted(RESERVED)}. Choose another name."
        )
