"""Which token ids stand for media: read from a model's config, with the exceptions in one table."""

from __future__ import annotations

import re
from typing import Any

VISUAL = ("image", "video", "vision", "visual")
KNOWN_KINDS = (*VISUAL, "audio", "speech")
INNER_CONFIGS = ("thinker_config",)  # the full Qwen Omni models keep what they see and hear in their thinker

# Models that no routing fits, by model_type.
REFUSED = {
    "mllama": "its images enter through cross-attention layers, so no token of the sequence is an image",
    "idefics": "its images enter through gated cross-attention layers, so no token of the sequence is an image",
}


def check_has_media_tokens(config: Any) -> None:
    """Raises ValueError, with the reason, for a model whose decoder sees no media tokens."""
    name = getattr(config, "model_type", "")
    reason = REFUSED.get(name)
    if reason is None and getattr(config, "is_encoder_decoder", False):
        reason = "its decoder attends to an encoder, so no token of the decoder's sequence is media"
    if reason is not None:
        raise ValueError(f"`model`: MokA cannot adapt {name}: {reason}. Use LoraConfig for it.")


def token_ids(config: Any) -> dict[str, int]:
    """Every `<name>_token_id` or `<name>_token_index` that is set, by name; the config's before its parts'."""
    inner = [getattr(config, name, None) for name in INNER_CONFIGS]
    parts = [getattr(owner, f"{kind}_config", None) for owner in (config, *inner) for kind in (*KNOWN_KINDS, "text")]
    found: dict[str, int] = {}
    for owner in (config, *inner, *parts):
        attributes = [*getattr(owner, "__dict__", ()), *(getattr(owner, "attribute_map", None) or {})]
        for match in filter(None, (re.fullmatch(r"(\w+)_token_(?:id|index)", name) for name in attributes)):
            value = getattr(owner, match[0], None)
            if isinstance(value, int):
                found.setdefault(match[1], value)
    return found


def media_token_ids(config: Any) -> dict[str, int]:
    """Kind of media -> id of its placeholder. A kind with a name of its own counts where the config describes it.

    That is, where the config holds `<kind>_config`; one that is None says that the model does not take the kind.
    """
    missing = object()
    owners = [owner for owner in (config, *(getattr(config, name, None) for name in INNER_CONFIGS)) if owner]
    found = {}
    for kind, token in token_ids(config).items():
        described = [getattr(owner, f"{kind}_config", missing) for owner in owners]
        known = kind in KNOWN_KINDS or any(d is not missing for d in described)
        absent = any(d is None for d in described)
        if known and not absent:
            found[kind] = token
    return found


def modality_of(kind: str) -> str:
    """The modality of a kind of media: images and videos are both visual, every other kind stands for itself."""
    return "visual" if kind in VISUAL else kind


def placeholders_by_modality(tokens: dict[str, int]) -> dict[str, tuple[int, ...]]:
    """Modality -> placeholder ids: visual, audio, then the others by name."""
    grouped: dict[str, list[int]] = {}
    for kind, token in tokens.items():
        grouped.setdefault(modality_of(kind), []).append(token)
    order = sorted(grouped, key=lambda name: (name != "visual", name != "audio", name))
    return {name: tuple(dict.fromkeys(grouped[name])) for name in order}
