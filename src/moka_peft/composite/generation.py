"""Generation with media: encoded once before the first step, expanded with their rows, dropped after prefill."""

from typing import Any

import torch
from torch import LongTensor, Tensor
from transformers import GenerationMixin

PIXELS_OF = {"image": "pixel_values", "video": "pixel_values_videos", "audio": "input_features"}
"""The forward's keyword for the raw tensors of each placeholder; `<placeholder>_embeds` is their encoded form."""


class MediaGeneration(GenerationMixin):
    """`generate` for a model whose media are flat over the batch, not one entry per row.

    transformers repeats every tensor along its first dimension for beams and several return sequences. Media have
    no batch dimension, so here each row's own embeddings are repeated, as often as the row is.
    """

    def _expand_inputs_for_generation(
        self,
        expand_size: int = 1,
        is_encoder_decoder: bool = False,
        input_ids: LongTensor | None = None,
        **model_kwargs: Any,
    ) -> tuple[LongTensor, dict[str, Any]]:
        raw = {name: model_kwargs.pop(key, None) for name, key in PIXELS_OF.items()}
        given = {name: model_kwargs.pop(f"{name}_embeds", None) for name in PIXELS_OF}
        media = self.embed_all(raw) | {name: embeds for name, embeds in given.items() if embeds is not None}
        for name, embeds in media.items() if expand_size > 1 else ():
            media[name] = _repeat_rows(embeds, input_ids == getattr(self.config, f"{name}_token_id"), expand_size)
        input_ids, model_kwargs = super()._expand_inputs_for_generation(
            expand_size, is_encoder_decoder, input_ids, **model_kwargs
        )
        return input_ids, model_kwargs | {f"{name}_embeds": embeds for name, embeds in media.items()}

    def prepare_inputs_for_generation(
        self, input_ids: LongTensor, *args: Any, is_first_iteration: bool = False, **kwargs: Any
    ) -> dict[str, Any]:
        if not is_first_iteration and kwargs.get("use_cache", True):
            for name in PIXELS_OF:
                kwargs.pop(f"{name}_embeds", None)
        return super().prepare_inputs_for_generation(input_ids, *args, is_first_iteration=is_first_iteration, **kwargs)


def _repeat_rows(embeds: Tensor, mask: Tensor, times: int) -> Tensor:
    """Repeats each row's embeddings: flat [tokens, D], row by row as `mask` [B, S] counts, -> [times * tokens, D].

    Raises ValueError where the mask does not hold as many tokens as there are embeddings.
    """
    tokens_per_row = mask.sum(-1).tolist()
    if sum(tokens_per_row) != embeds.shape[0]:
        raise ValueError(
            f"`input_ids` and the media do not match: expected {sum(tokens_per_row)} embeddings (per row "
            f"{tokens_per_row}), got {embeds.shape[0]}. Let the processor make both from the same text and media."
        )
    return torch.cat([row.repeat(times, 1) for row in embeds.split(tokens_per_row)])
