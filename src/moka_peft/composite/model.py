"""A causal language model that reads images, videos, audio and other media through encoders and projectors."""

from typing import Any

import torch
from torch import LongTensor, Tensor, nn
from transformers import AutoModelForCausalLM, GenerationMixin, PreTrainedModel
from transformers import initialization as init
from transformers.modeling_outputs import CausalLMOutputWithPast

from .config import CompositeConfig
from .encoders import build_encoder, encode, feature_width
from .filling import check_fit, fill_placeholders
from .generation import MediaGeneration, composite_generation_config
from .kinds import encoder_of, media_parts, raw_name
from .projectors import build_projector
from .qformer import QUERY_STD, QFormerProjector


class CompositeForConditionalGeneration(PreTrainedModel, MediaGeneration, GenerationMixin):
    """Any `AutoModelForCausalLM` plus a vision, an audio and other encoders, each with a projector, as one model.

    Every image, video frame, audio segment and piece of another medium is encoded and projected by itself; its
    embeddings replace the placeholder tokens in order. The language model keeps its own head and loss. `parts` hands
    over modules that exist already (`text_model`, `vision_encoder`, `audio_encoder`, `<kind>_encoder`) instead of
    building them from the config.
    """

    config_class = CompositeConfig
    config: CompositeConfig
    base_model_prefix = ""
    main_input_name = "input_ids"
    input_modalities = ["image", "video", "audio", "text"]
    supports_gradient_checkpointing = True
    _supports_flash_attn = True
    _supports_sdpa = True
    _supports_flex_attn = True
    _supports_attention_backend = True
    _skip_keys_device_placement = ["past_key_values"]

    text_model: Any
    vision_encoder: PreTrainedModel | None
    audio_encoder: PreTrainedModel | None

    def __init__(self, config: CompositeConfig, parts: dict[str, Any] | None = None):
        super().__init__(config)
        if config.text_config is None:
            raise ValueError("`config` has no `text_config`: a composite needs a language model. Pass its config.")
        parts = parts or {}
        for given in parts.values():
            _mark_loaded(given)
        self.text_model = parts.get("text_model") or AutoModelForCausalLM.from_config(config.text_config)
        for part in media_parts(config.other_media):
            self._add_part(part, parts.get(f"{part}_encoder"))
        placeholder_ids = [getattr(config, f"{name}_token_id") for name in config.kinds]
        self.generation_config = composite_generation_config(
            self.text_model.generation_config, [token_id for token_id in placeholder_ids if token_id is not None]
        )
        self.post_init()

    def _add_part(self, part: str, encoder: PreTrainedModel | None) -> None:
        """Adds `<part>_encoder` and `<part>_projector`, or None for both where the config has no such part."""
        encoder_config = getattr(self.config, f"{part}_config")
        projector = None
        if encoder_config is not None:
            encoder = encoder or build_encoder(encoder_config)
            width_in = feature_width(encoder_config, getattr(self.config, f"{part}_feature_layers"))
            width_out = self.config.text_config.hidden_size
            projector = build_projector(getattr(self.config, f"{part}_projector"), width_in, width_out)
        setattr(self, f"{part}_encoder", encoder)
        setattr(self, f"{part}_projector", projector)

    @torch.no_grad()
    def _init_weights(self, module: nn.Module) -> None:
        """Gives one module of a projector its first weights, those that loading did not give it."""
        super()._init_weights(module)
        if isinstance(module, QFormerProjector):
            init.normal_(module.queries, std=QUERY_STD)

    def forward(
        self,
        input_ids: LongTensor | None = None,
        attention_mask: Tensor | None = None,
        position_ids: LongTensor | None = None,
        past_key_values: Any = None,
        inputs_embeds: Tensor | None = None,
        pixel_values: Tensor | None = None,
        pixel_values_videos: Tensor | None = None,
        input_features: Tensor | None = None,
        image_embeds: Tensor | None = None,
        video_embeds: Tensor | None = None,
        audio_embeds: Tensor | None = None,
        labels: LongTensor | None = None,
        **kwargs: Any,
    ) -> CausalLMOutputWithPast:
        """Runs the language model on text with media in it.

        `pixel_values` [images, 3, H, W]; `pixel_values_videos` [frames of all videos, 3, H, W] (or [videos, T, 3,
        H, W]); `input_features` [segments of all clips, ...] as the feature extractor gives them; `*_embeds`
        [tokens, D] are the same media already encoded and projected; other media are `<kind>_values` [pieces, ...]
        or `<kind>_embeds`. Media are in the order of their placeholders over the batch. Further keywords reach the
        language model.
        Raises ValueError where placeholders and embeddings differ in number.
        """
        others = self.config.other_media
        media = self.embed_all(
            {"image": pixel_values, "video": pixel_values_videos, "audio": input_features}
            | {kind: kwargs.pop(raw_name(kind), None) for kind in others},
            {"image": image_embeds, "video": video_embeds, "audio": audio_embeds}
            | {kind: kwargs.pop(f"{kind}_embeds", None) for kind in others},
        )
        if (input_ids is None) == (inputs_embeds is None):
            raise ValueError("`input_ids` and `inputs_embeds`: expected exactly one of them. Pass one.")
        if input_ids is not None:
            is_prefill = past_key_values is None or past_key_values.get_seq_length() == 0
            inputs_embeds = self._embed(input_ids, media, check_absent=is_prefill)
        elif media:
            raise ValueError("media came without `input_ids`, which say where they belong. Pass `input_ids`.")
        return self.text_model(
            inputs_embeds=inputs_embeds,
            attention_mask=attention_mask,
            position_ids=position_ids,
            past_key_values=past_key_values,
            labels=labels,
            **kwargs,
        )

    def embed_all(
        self, raw: dict[str, Tensor | None], embedded: dict[str, Tensor | None] | None = None
    ) -> dict[str, Tensor]:
        """Embeddings [tokens, D] of what is there, by kind ("image", ...): `raw` is encoded and projected,
        `embedded` taken as it is. Raises ValueError for media of a kind that the composite lacks, or given twice."""
        media = {name: embeds for name, embeds in (embedded or {}).items() if embeds is not None}
        for name, tensor in raw.items():
            if tensor is not None and name in media:
                raise ValueError(f"`{raw_name(name)}` and `{name}_embeds`: expected one of them. Pass one.")
            if tensor is not None:
                media[name] = self.embed_media(name, tensor).flatten(0, 1)
        for name in media:
            self._check_input(name)
        return media

    def embed_media(self, name: str, media: Tensor) -> Tensor:
        """Encodes and projects N images, frames, segments or pieces, each by itself: [N, ...] -> [N, T, D].

        `name` is "image", "video", "audio" or another kind of the config's.
        """
        self._check_input(name)
        part = encoder_of(name)
        media = media.flatten(0, 1) if name == "video" and media.ndim == 5 else media
        layers, select = (getattr(self.config, f"{part}_feature_{field}") for field in ("layers", "select"))
        features = encode(getattr(self, f"{part}_encoder"), media, layers, select)
        projector = getattr(self, f"{part}_projector")
        return projector(features.to(next(projector.parameters()).dtype))

    def _check_input(self, name: str) -> None:
        """Raises where the composite has no such input."""
        if getattr(self.config, f"{name}_token_id", None) is None:
            raise ValueError(
                f"`{raw_name(name)}` or `{name}_embeds` was given, but this composite has no {name} input. Leave it "
                f"out, or build the composite with a {encoder_of(name)} encoder."
            )

    def _embed(self, input_ids: LongTensor, media: dict[str, Tensor], check_absent: bool) -> Tensor:
        """Token embeddings [B, S, D], those of placeholders replaced; `check_absent` looks for placeholders of
        media that did not come."""
        inputs_embeds = self.get_input_embeddings()(input_ids)
        for name in self.config.kinds:
            token_id = getattr(self.config, f"{name}_token_id")
            if name in media:
                inputs_embeds = fill_placeholders(inputs_embeds, input_ids == token_id, media[name], name)
            elif check_absent and token_id is not None:
                check_fit(input_ids == token_id, 0, name)
        return inputs_embeds

    def train(self, mode: bool = True) -> "CompositeForConditionalGeneration":
        """Sets training mode; an encoder or projector with no trainable weight stays in eval, its dropout off."""
        super().train(mode)
        for part in media_parts(self.config.other_media):
            for module in (getattr(self, f"{part}_encoder"), getattr(self, f"{part}_projector")):
                if module is not None and not any(weight.requires_grad for weight in module.parameters()):
                    module.eval()
        return self

    def get_decoder(self) -> Any:
        """The text decoder, the part that adapters go into."""
        return self.text_model.get_decoder()

    def get_input_embeddings(self) -> nn.Module:
        return self.text_model.get_input_embeddings()

    def set_input_embeddings(self, value: nn.Module) -> None:
        self.text_model.set_input_embeddings(value)

    def get_output_embeddings(self) -> Any:
        return self.text_model.get_output_embeddings()

    def set_output_embeddings(self, new_embeddings: nn.Module) -> None:
        self.text_model.set_output_embeddings(new_embeddings)

    def enable_input_require_grads(self) -> None:
        """Lets the language model's embeddings take gradients. Those of an encoder must not: a frozen one would keep
        all that it computes, and be differentiated through."""
        self.text_model.enable_input_require_grads()

    def disable_input_require_grads(self) -> None:
        """The inverse of `enable_input_require_grads`."""
        self.text_model.disable_input_require_grads()

    def _set_gradient_checkpointing(self, *args: Any, **kwargs: Any) -> None:
        """Checkpoints the language model only: a frozen encoder stores no activations that could be saved."""
        self.text_model._set_gradient_checkpointing(*args, **kwargs)


def _mark_loaded(model: PreTrainedModel) -> None:
    """Keeps the first weights that `post_init` gives away from a model that has its own, however these came into it:
    it knows only those that `from_pretrained` loaded."""
    for module in model.modules():
        module._is_hf_initialized = True  # pyright: ignore[reportArgumentType]
