"""Puts the embeddings of media where their placeholder tokens stand."""

import torch
from torch import Tensor


def fill_placeholders(inputs_embeds: Tensor, mask: Tensor, embeds: Tensor, name: str) -> Tensor:
    """Replaces the masked positions of [B, S, D] by `embeds` [tokens, D], in order over the batch.

    `mask` [B, S] is True at the placeholders of one kind, `name` ("image", ...) is for the error. Raises ValueError
    where they differ in number; inside torch.compile, where values cannot be read, nothing is checked.
    """
    check_fit(mask, embeds.shape[0], name)
    return inputs_embeds.masked_scatter(mask[..., None], embeds.to(inputs_embeds.device, inputs_embeds.dtype))


def check_fit(mask: Tensor, embeddings: int, name: str) -> None:
    """Raises ValueError where the mask [B, S] does not have as many placeholders as there are embeddings."""
    if torch.compiler.is_compiling():
        return
    tokens_per_row = mask.sum(-1).tolist()
    if sum(tokens_per_row) != embeddings:
        raise ValueError(
            f"`input_ids` and the {name} input do not match: expected {sum(tokens_per_row)} embeddings for the "
            f"{name} tokens (per row {tokens_per_row}), got {embeddings}. Let the processor make both from the same "
            f"text and media, and neither truncate nor split them."
        )


def repeat_rows(embeds: Tensor, mask: Tensor, times: int, name: str) -> Tensor:
    """Repeats each row's embeddings: [tokens, D], split over rows as `mask` [B, S] counts -> [times * tokens, D].

    Row 0's come first, `times` times over, as when each row of the batch is repeated. Raises like
    `fill_placeholders`.
    """
    check_fit(mask, embeds.shape[0], name)
    return torch.cat([row.repeat(times, 1) for row in embeds.split(mask.sum(-1).tolist())])
