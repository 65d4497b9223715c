"""What a composite is made of, as one transformers config."""

from typing import Any, ClassVar, Literal

from transformers import AutoConfig, PreTrainedConfig

from .projectors import PROJECTORS

MEDIA_PARTS = {"vision": ("image", "video"), "audio": ("audio",)}
"""The placeholders that each encoder serves: a video is frames through the vision encoder."""


class CompositeConfig(PreTrainedConfig):
    """Describes a causal language model with an optional vision and an optional audio encoder.

    `text_config`, `vision_config`, `audio_config` are configs of any transformers model, or their dicts with a
    `model_type`. `vision_projector` and `audio_projector` are `{"type": ..., **settings}`, see `PROJECTORS`.
    `*_feature_layers` are indices into the encoder's `hidden_states`, joined along the feature axis; None takes
    its last, normalised state. `*_feature_select` is "patch" (without class and register tokens) or "all".
    `image_token_id`, `video_token_id`, `audio_token_id` mark the positions that embeddings replace; None where
    the composite has no such input. Raises ValueError where the parts do not fit together.
    """

    model_type = "moka_composite"
    keys_to_ignore_at_inference = ["past_key_values"]
    sub_configs: ClassVar[dict[str, Any]] = {  # pyright: ignore[reportIncompatibleMethodOverride]
        "text_config": AutoConfig,
        "vision_config": AutoConfig,
        "audio_config": AutoConfig,
    }

    text_config: Any = None
    vision_config: Any = None
    audio_config: Any = None
    vision_projector: Any = None
    audio_projector: Any = None
    vision_feature_layers: list[int] | None = None
    audio_feature_layers: list[int] | None = None
    vision_feature_select: Literal["patch", "all"] = "patch"
    audio_feature_select: Literal["patch", "all"] = "patch"
    image_token_id: int | None = None
    video_token_id: int | None = None
    audio_token_id: int | None = None
    tie_word_embeddings: bool = False

    def __post_init__(self, **kwargs):
        self.text_config = _as_config(self.text_config, "text_config")
        self.vision_config = _as_config(self.vision_config, "vision_config")
        self.audio_config = _as_config(self.audio_config, "audio_config")
        if self.text_config is not None:
            self.tie_word_embeddings = bool(getattr(self.text_config, "tie_word_embeddings", False))
        for part, placeholders in MEDIA_PARTS.items():
            self._check_part(part, placeholders)
        for choice in ("attn_implementation", "experts_implementation"):
            if kwargs.get(choice) is None:
                kwargs[choice] = {}  # None would reach the parts' configs and take from them what they were built with
        super().__post_init__(**kwargs)

    def _check_part(self, part: str, placeholders: tuple[str, ...]) -> None:
        """Raises where an encoder, its projector and its placeholder ids are not all there, or all absent."""
        has_ids = any(getattr(self, f"{name}_token_id") is not None for name in placeholders)
        if getattr(self, f"{part}_config") is None:
            if has_ids:
                names = " or ".join(f"`{name}_token_id`" for name in placeholders)
                raise ValueError(f"{names} is set without a `{part}_config`. Give the encoder or leave the id None.")
            return
        if not has_ids:
            raise ValueError(
                f"`{part}_config` has no placeholder: expected `{placeholders[0]}_token_id` to be a token id, "
                f"got None. Add the placeholder to the tokenizer and pass its id."
            )
        projector = getattr(self, f"{part}_projector") or {"type": "mlp"}
        if projector.get("type") not in PROJECTORS:
            raise ValueError(
                f"`{part}_projector` type is unknown: expected one of {sorted(PROJECTORS)}, got "
                f"{projector.get('type')!r}. Choose one of these."
            )
        setattr(self, f"{part}_projector", projector)
        self._check_layers(part)

    def _check_layers(self, part: str) -> None:
        """Raises where a feature layer is not among the encoder's hidden states: embeddings, then every layer."""
        chosen = getattr(self, f"{part}_feature_layers")
        if chosen is None:
            return
        depth = getattr(self, f"{part}_config").num_hidden_layers
        if not chosen or any(not -depth - 1 <= layer <= depth for layer in chosen):
            raise ValueError(
                f"`{part}_feature_layers` is wrong: expected layers from {-depth - 1} to {depth}, got {chosen}. Layer "
                f"0 is the embeddings; None takes the encoder's last state."
            )


def _as_config(config: dict | PreTrainedConfig | None, name: str) -> PreTrainedConfig | None:
    """Turns a dict with a `model_type` into that model's config; a config and None pass through."""
    if config is None or isinstance(config, PreTrainedConfig):
        return config
    if "model_type" not in config:
        raise ValueError(f"`{name}` has no `model_type`: got the keys {sorted(config)}. Name the architecture.")
    settings = {key: value for key, value in config.items() if key != "model_type"}
    return AutoConfig.for_model(config["model_type"], **settings)
