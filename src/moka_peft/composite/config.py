"""What a composite is made of, as one transformers config."""

from typing import Any, ClassVar, Literal

from transformers import CONFIG_MAPPING, AutoConfig, PreTrainedConfig

from .kinds import check_name, media_parts
from .projectors import PROJECTORS

PART_FIELDS = {"config": None, "projector": None, "token_id": None, "feature_layers": None, "feature_select": "all"}
"""What `other_media` holds for each kind, with the defaults."""


class CompositeConfig(PreTrainedConfig):
    """Describes a causal language model with an optional vision and an optional audio encoder.

    `text_config`, `vision_config`, `audio_config` are configs of any transformers model, or their dicts with a
    `model_type`. `vision_projector` and `audio_projector` are `{"type": ..., **settings}`, see `PROJECTORS`.
    `*_feature_layers` are indices into the encoder's `hidden_states`, joined along the feature axis; None takes
    its last, normalised state. `*_feature_select` is "patch" (without class and register tokens) or "all".
    `image_token_id`, `video_token_id`, `audio_token_id` mark the positions that embeddings replace; None where
    the composite has no such input.

    `other_media` adds kinds of media of any name: `{"series": {"config": ..., "projector": ..., "token_id": ...,
    "feature_layers": ..., "feature_select": ...}}`, the same fields, read and written as `series_config`,
    `series_projector`, ... Their encoder is a transformers model of any kind, registered with `AutoModel`; all of
    its tokens are used by default. Raises ValueError where the parts do not fit together.
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
    other_media: Any = None
    tie_word_embeddings: bool = False

    def __post_init__(self, **kwargs):
        self.text_config = _as_config(self.text_config, "text_config")
        self.vision_config = _as_config(self.vision_config, "vision_config")
        self.audio_config = _as_config(self.audio_config, "audio_config")
        if self.text_config is not None:
            self.tie_word_embeddings = bool(getattr(self.text_config, "tie_word_embeddings", False))
        self.other_media = dict(self.other_media or {})
        for kind, section in self.other_media.items():
            self._add_kind(kind, section)
        for part, kinds in media_parts(self.other_media).items():
            self._check_part(part, kinds)
        for choice in ("attn_implementation", "experts_implementation"):
            if kwargs.get(choice) is None:
                kwargs[choice] = {}  # None would reach the parts' configs and take from them what they were built with
        super().__post_init__(**kwargs)

    @property
    def kinds(self) -> list[str]:
        """Every kind of media that a composite may read: "image", "video", "audio", and those of `other_media`."""
        return [kind for kinds in media_parts(self.other_media).values() for kind in kinds]

    def to_dict(self) -> dict[str, Any]:
        """As transformers does; other media are written under `other_media` alone."""
        written = super().to_dict()
        for kind in self.other_media:
            written["other_media"][kind] = {field: written.pop(f"{kind}_{field}") for field in PART_FIELDS}
        return written

    def _add_kind(self, kind: str, section: dict[str, Any]) -> None:
        """Sets `<kind>_config`, `<kind>_projector`, ... from what `other_media` holds for a kind."""
        check_name(kind)
        if unknown := sorted(set(section) - set(PART_FIELDS)):
            raise ValueError(
                f"`other_media` has unknown fields for {kind}: expected {list(PART_FIELDS)}, got {unknown}."
            )
        for field, default in PART_FIELDS.items():
            setattr(self, f"{kind}_{field}", section.get(field, default))
        config = _as_config(section.get("config"), f"{kind}_config")
        if config is None:
            raise ValueError(f"`other_media` has no encoder for {kind}: expected its `config`. Give it.")
        setattr(self, f"{kind}_config", config)

    def _check_part(self, part: str, kinds: tuple[str, ...]) -> None:
        """Raises where an encoder, its projector and its placeholder ids are not all there, or all absent."""
        has_ids = any(getattr(self, f"{kind}_token_id") is not None for kind in kinds)
        if getattr(self, f"{part}_config") is None:
            if has_ids:
                names = " or ".join(f"`{kind}_token_id`" for kind in kinds)
                raise ValueError(f"{names} is set without a `{part}_config`. Give the encoder or leave the id None.")
            return
        if not has_ids:
            raise ValueError(
                f"`{part}_config` has no placeholder: expected `{kinds[0]}_token_id` to be a token id, "
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
    if config["model_type"] not in CONFIG_MAPPING:
        raise ValueError(
            f"`{name}` names the unknown architecture {config['model_type']}: expected one that transformers has. "
            f"Import the code that registers it with AutoConfig first."
        )
    return AutoConfig.for_model(config["model_type"], **settings)
