"""Generation with media: encoded once before the first step, expanded with their rows, dropped after prefill."""

from typing import Any

from torch import LongTensor, Tensor
from transformers import GenerationConfig, GenerationMixin

from .filling import repeat_rows
from .kinds import raw_name


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
        raw = {name: model_kwargs.pop(raw_name(name), None) for name in self.config.kinds}
        given = {name: model_kwargs.pop(f"{name}_embeds", None) for name in self.config.kinds}
        media = self.embed_all(raw, given)
        for name, embeds in media.items() if expand_size > 1 else ():
            media[name] = repeat_rows(embeds, input_ids == getattr(self.config, f"{name}_token_id"), expand_size, name)
        parent: Any = super()
        input_ids, model_kwargs = parent._expand_inputs_for_generation(
            expand_size, is_encoder_decoder, input_ids, **model_kwargs
        )
        return input_ids, model_kwargs | {f"{name}_embeds": embeds for name, embeds in media.items()}

    def _validate_model_kwargs(self, model_kwargs: dict[str, Any]) -> None:
        """Lets the tensors of other media pass: transformers knows what the forward's signature names."""
        others = self.config.other_media
        named = {name for kind in others for name in (raw_name(kind), f"{kind}_embeds")}
        parent: Any = super()
        parent._validate_model_kwargs({name: value for name, value in model_kwargs.items() if name not in named})

    def prepare_inputs_for_generation(
        self,
        input_ids: LongTensor,
        *args: Any,
        inputs_embeds: Tensor | None = None,
        is_first_iteration: bool | None = False,
        **kwargs: Any,
    ) -> dict[str, Any]:
        if not is_first_iteration and kwargs.get("use_cache", True):
            for name in self.config.kinds:
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
