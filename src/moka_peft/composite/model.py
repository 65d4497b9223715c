"""A causal language model that reads images, videos and audio through encoders and projectors."""

from typing import Any

import torch
from torch import LongTensor, Tensor, nn
from transformers import AutoModelForCausalLM, GenerationMixin, PreTrainedModel
from transformers.modeling_outputs import CausalLMOutputWithPast

from .config import CompositeConfig
from .encoders import build_encoder, encode, feature_width
from .generation import PIXELS_OF, MediaGeneration
from .projectors import build_projector

PART_OF = {"image": "vision", "video": "vision", "audio": "audio"}


class CompositeForConditionalGeneration(PreTrainedModel, MediaGeneration, GenerationMixin):
    """Any `AutoModelForCausalLM` plus a vision and an audio encoder, each with a projector, as one model.

    Every image, video frame and audio segment is encoded and projected by itself; its embeddings replace the
    placeholder tokens in order. The language model keeps its own head and loss. `parts` hands over modules that
    exist already (`text_model`, `vision_encoder`, `audio_encoder`) instead of building them from the config.
    """

    config_class = CompositeConfig
    config: CompositeConfig
    base_model_prefix = ""
    main_input_name = "input_ids"
    input_modalities = ("image", "video", "audio", "text")
    supports_gradient_checkpointing = True
    _supports_flash_attn = True
    _supports_sdpa = True
    _supports_flex_attn = True
    _supports_attention_backend = True
    _skip_keys_device_placement = ["past_key_values"]

    def __init__(self, config: CompositeConfig, parts: dict[str, nn.Module] | None = None):
        super().__init__(config)
        parts = parts or {}
        if config.text_config is None:
            raise ValueError("`config` has no `text_config`: a composite needs a language model. Pass its config.")
        width = config.text_config.hidden_size
        self.text_model = parts.get("text_model") or AutoModelForCausalLM.from_config(config.text_config)
        if config.vision_config is not None:
            self.vision_encoder = parts.get("vision_encoder") or build_encoder(config.vision_config)
            self.vision_projector = build_projector(
                config.vision_projector, feature_width(config.vision_config, config.vision_feature_layers), width
            )
        if config.audio_config is not None:
            self.audio_encoder = parts.get("audio_encoder") or build_encoder(config.audio_config)
            self.audio_projector = build_projector(
                config.audio_projector, feature_width(config.audio_config, config.audio_feature_layers), width
            )
        self.post_init()

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
        [tokens, D] are the same media already encoded and projected. Media are in the order of their
        placeholders over the batch. Other keywords reach the language model.
        Raises ValueError where placeholders and embeddings differ in number.
        """
        given = {"image": image_embeds, "video": video_embeds, "audio": audio_embeds}
        raw = {"image": pixel_values, "video": pixel_values_videos, "audio": input_features}
        media = self.embed_all(raw) | {name: embeds for name, embeds in given.items() if embeds is not None}
        if (input_ids is None) == (inputs_embeds is None):
            raise ValueError("`input_ids` and `inputs_embeds`: expected exactly one of them. Pass one.")
        if input_ids is None and media:
            raise ValueError("media came without `input_ids`, which say where they belong. Pass `input_ids`.")
        if inputs_embeds is None:
            is_prefill = past_key_values is None or past_key_values.get_seq_length() == 0
            inputs_embeds = self._embed(input_ids, media, check_absent=is_prefill)
        return self.text_model(
            inputs_embeds=inputs_embeds,
            attention_mask=attention_mask,
            position_ids=position_ids,
            past_key_values=past_key_values,
            labels=labels,
            **kwargs,
        )

    def embed_all(self, raw: dict[str, Tensor | None]) -> dict[str, Tensor]:
        """Encodes and projects what is there of {"image" | "video" | "audio": tensor}, each to [tokens, D]."""
        present = {name: tensor for name, tensor in raw.items() if tensor is not None}
        return {name: self.embed_media(name, tensor).flatten(0, 1) for name, tensor in present.items()}

    def embed_media(self, placeholder: str, media: Tensor) -> Tensor:
        """Encodes and projects N images, frames or segments, each by itself: [N, ...] -> [N, T, D].

        `placeholder` is "image", "video" or "audio". Raises ValueError where the composite has no such input.
        """
        part = PART_OF[placeholder]
        if getattr(self.config, f"{placeholder}_token_id") is None:
            raise ValueError(
                f"`{PIXELS_OF[placeholder]}` was given, but this composite has no {placeholder} input: "
                f"`config.{placeholder}_token_id` is None. Leave it out, or build the composite with {part}."
            )
        encoder = getattr(self, f"{part}_encoder")
        if part == "vision" and media.ndim == 5:
            media = media.flatten(0, 1)
        layers = getattr(self.config, f"{part}_feature_layers")
        features = encode(encoder, media, layers, getattr(self.config, f"{part}_feature_select"))
        projector = getattr(self, f"{part}_projector")
        return projector(features.to(next(projector.parameters()).dtype))

    def _embed(self, input_ids: LongTensor, media: dict[str, Tensor], check_absent: bool) -> Tensor:
        """Token embeddings [B, S, D] with those of placeholders replaced by the media's."""
        inputs_embeds = self.get_input_embeddings()(input_ids)
        for placeholder in PIXELS_OF:
            token_id = getattr(self.config, f"{placeholder}_token_id")
            embeds = media.get(placeholder)
            if token_id is None or (embeds is None and not check_absent):
                continue
            mask = input_ids == token_id
            _check_count(placeholder, mask, embeds)
            if embeds is not None:
                embeds = embeds.to(inputs_embeds.device, inputs_embeds.dtype)
                inputs_embeds = inputs_embeds.masked_scatter(mask[..., None], embeds)
        return inputs_embeds

    def train(self, mode: bool = True) -> "CompositeForConditionalGeneration":
        """Sets training mode; an encoder with no trainable weight stays in eval, so its dropout stays off."""
        super().train(mode)
        for name in ("vision_encoder", "audio_encoder"):
            encoder = getattr(self, name, None)
            if encoder is not None and not any(p.requires_grad for p in encoder.parameters()):
                encoder.eval()
        return self

    def get_decoder(self) -> nn.Module:
        """The text decoder, the part that adapters go into."""
        return self.text_model.get_decoder()

    def get_input_embeddings(self) -> nn.Module:
        return self.text_model.get_input_embeddings()

    def set_input_embeddings(self, value: nn.Module) -> None:
        self.text_model.set_input_embeddings(value)

    def get_output_embeddings(self) -> nn.Module:
        return self.text_model.get_output_embeddings()

    def set_output_embeddings(self, new_embeddings: nn.Module) -> None:
        self.text_model.set_output_embeddings(new_embeddings)

    def _set_gradient_checkpointing(self, *args: Any, **kwargs: Any) -> None:
        """Checkpoints the language model only: frozen encoders store no activations that could be saved."""
        self.text_model._set_gradient_checkpointing(*args, **kwargs)


def _check_count(placeholder: str, mask: Tensor, embeds: Tensor | None) -> None:
    """Raises where the placeholder tokens in `mask` [B, S] are not as many as the embeddings [tokens, D]."""
    if torch.compiler.is_compiling():
        return
    tokens, got = int(mask.sum()), 0 if embeds is None else embeds.shape[0]
    if tokens != got:
        raise ValueError(
            f"`input_ids` and the {placeholder} input do not match: expected {tokens} embeddings for the "
            f"{tokens} {placeholder} tokens (per row {mask.sum(-1).tolist()}), got {got}. Let the processor make "
            f"both from the same text and media, and do not truncate."
        )
