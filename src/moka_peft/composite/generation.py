"""Generation with media: encoded once before the first step, expanded with their rows, dropped after prefill."""

from typing import Any

from torch import LongTensor, Tensor
from transformers import GenerationConfig, GenerationMixin

from .filling import repeat_rows

RAW_NAMES = {"image": "pixel_values", "video": "pixel_values_videos", "audio": "input_features"}
"""The forward's keyword for the raw tensors of each placeholder; `<placeholder>_embeds` is their encoded form."""


class MediaGeneration(GenerationMixin):
    """`generate` for a model whose media are flat over the batch, not one entry per row.

    transformers repeats every tensor along its first dimension for beams and several return sequences. Media have
    no batch dimension, so here each row's own embeddings are repeated, as often as the row is.
    """

    config: Any
    embed_all: Any

    def _expand_inputs_for_generation(
        self,
        expand_size: int = 1,
        is_encoder_decoder: bool = False,
        input_ids: LongTensor | None = None,
        **model_kwargs: Any,
    ) -> tuple[Any, dict[str, Any]]:
        raw = {name: model_kwargs.pop(key, None) for name, key in RAW_NAMES.items()}
        given = {name: model_kwargs.pop(f"{name}_embeds", None) for name in RAW_NAMES}
        media = self.embed_all(raw, given)
        for name, embeds in media.items() if expand_size > 1 else ():
            media[name] = repeat_rows(embeds, input_ids == getattr(self.config, f"{name}_token_id"), expand_size, name)
        parent: Any = super()
        input_ids, model_kwargs = parent._expand_inputs_for_generation(
            expand_size, is_encoder_decoder, input_ids, **model_kwargs
        )
        return input_ids, model_kwargs | {f"{name}_embeds": embeds for name, embeds in media.items()}

    def prepare_inputs_for_generation(
        self,
        input_ids: LongTensor,
        *args: Any,
        inputs_embeds: Tensor | None = None,
        is_first_iteration: bool | None = False,
        **kwargs: Any,
    ) -> dict[str, Any]:
        if not is_first_iteration and kwargs.get("use_cache", True):
            for name in RAW_NAMES:
                kwargs.pop(f"{name}_embeds", None)
        parent: Any = super()
        return parent.prepare_inputs_for_generation(
            input_ids, *args, inputs_embeds=inputs_embeds, is_first_iteration=is_first_iteration, **kwargs
        )


def composite_generation_config(text_settings: GenerationConfig, placeholder_ids: list[int]) -> GenerationConfig:
    """The language model's generation settings, with placeholders never generated: nothing would stand behind them."""
    settings = GenerationConfig.from_dict(text_settings.to_dict())
    settings.suppress_tokens = sorted({*(settings.suppress_tokens or []), *placeholder_ids})
    return settings
