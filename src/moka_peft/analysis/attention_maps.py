"""Which words of an instruction the media of one sample attend to, in every layer and projection of a MokA adapter."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from moka_peft.analysis.adapted_layers import active_adapter, describe_adapter, modalities_of
from moka_peft.analysis.attention_picture import draw_attention
from moka_peft.analysis.image_grids import image_grids
from moka_peft.analysis.layer_names import place_of
from moka_peft.analysis.rank_attention import Captured, RankAttention, capture_attention, check_has_attention
from moka_peft.analysis.words import group_words
from moka_peft.data import Collator, Sample
from moka_peft.tuner.channel import channel_of

__all__ = ["check_has_attention", "draw_attention", "measure_attention"]

DIGITS = 5  # of a weight in the result


def measure_attention(
    model: Any, processor: Any, sample: Sample, *, with_answer: bool = False, collator: Collator | None = None
) -> dict[str, Any]:
    """The attention of one forward of `model` on `sample`, as JSON data; docs/analysis.md explains its fields.

    with_answer: also feeds the answer, which no medium sees. Raises ValueError where the adapter has no attention, or
    the sample no media with an instruction.
    """
    check_has_attention(model)
    collator = collator or Collator(processor)
    batch = collator([sample]) if with_answer else collator.collate_prompts([sample])
    inputs = {name: value.to(model.device) if torch.is_tensor(value) else value for name, value in batch.items()}
    captured = capture_attention(model, {**inputs, "use_cache": False})
    first = next(iter(captured.layers.values()))
    if not first.queries.numel():
        raise ValueError(f"sample `{sample.id}` has no media with an instruction: nothing attends. Choose another one.")
    sides = Sides(model, processor, captured, inputs["input_ids"][0].tolist())
    media_tokens = [{"modality": sides.name(p), "turn": int(sides.turn[p]), "position": p} for p in sides.media]
    return {
        "adapter": describe_adapter(model),
        "sample": sample.id,
        "with_answer": with_answer,
        "interaction": sides.interaction,
        "words": [{"text": text, "tokens": len(at), "turn": int(sides.turn[at[0]])} for text, at in sides.words],
        "media": media_tokens,
        "even": sides.even(first),
        "layers": [sides.describe(name, attention) for name, attention in captured.layers.items()],
        "images": image_grids(model, sample, sides.places_of("visual"), collator.media),
    }


class Sides:
    """The two sides of a sample's attention, words and media tokens, as axes of every layer's matrix."""

    def __init__(self, model: Any, processor: Any, captured: Captured, ids: Sequence[int]) -> None:
        channel, adapter = channel_of(model), active_adapter(model)
        self.names = modalities_of(channel, adapter)
        self.interaction: str = channel.configs[adapter].interaction
        self.modality, self.turn = captured.routing.modality[0].cpu(), captured.routing.turn[0].cpu()
        text, media = self.text_and_media(next(iter(captured.layers.values())))
        is_instruction = (self.modality[text] == 0) & (self.turn[text] > 0)
        self.media: list[int] = media.tolist()
        self.words = group_words(processor.tokenizer, ids, text[is_instruction].tolist())

    def text_and_media(self, attention: RankAttention) -> tuple[Tensor, Tensor]:
        """The positions of a matrix's text tokens and of its media tokens."""
        sides = attention.queries, attention.keys
        return sides if self.interaction == "text_query" else (sides[1], sides[0])

    def name(self, position: int) -> str:
        """The modality of the token at a position."""
        return self.names[int(self.modality[position])]

    def places_of(self, modality: str) -> list[int]:
        """Where the tokens of a modality stand among the media tokens."""
        return [place for place, position in enumerate(self.media) if self.name(position) == modality]

    def even(self, attention: RankAttention) -> list[float]:
        """What an even spread would give each word, or each media token where the words attend."""
        reach, text_asks = attention.reach.double(), self.interaction == "text_query"
        if text_asks:
            kinds = self.modality[attention.keys]
            per_kind = reach @ (kinds[:, None] == kinds[None]).double()  # [Q, K] keys of the same modality
            return (reach / per_kind.clamp(min=1)).amax(0).tolist()
        share = (reach / reach.sum(1, keepdim=True)).amax(0)
        at = {position: float(value) for position, value in zip(attention.keys.tolist(), share, strict=True)}
        return [sum(at[p] for p in positions) for _, positions in self.words]

    def describe(self, name: str, attention: RankAttention) -> dict[str, Any]:
        """One layer: its matrix [media tokens, words] and, per modality, how even the attention is."""
        number, projection = place_of(name)
        present = sorted({int(self.modality[p]) for p in self.media})
        even = {self.names[m]: self._evenness(attention, m) for m in present}
        return {
            "layer": number,
            "projection": projection,
            "name": name,
            "weights": [[round(w, DIGITS) for w in row] for row in self._by_word(attention).tolist()],
            "entropy": {modality: entropy for modality, (entropy, _) in even.items()},
            "on_zero_keys": {modality: share for modality, (_, share) in even.items()},
        }

    def _by_word(self, attention: RankAttention) -> Tensor:
        """[media tokens, words]: the sum over a word's tokens; their mean where it is they that attend."""
        text, _ = self.text_and_media(attention)
        text_asks = self.interaction == "text_query"
        weights = attention.weights if text_asks else attention.weights.T  # [text tokens, media tokens]
        place = {position: index for index, position in enumerate(text.tolist())}
        rows = [weights[[place[p] for p in at]] for _, at in self.words]
        return torch.stack([row.mean(0) if text_asks else row.sum(0) for row in rows], 1)

    def _evenness(self, attention: RankAttention, m: int) -> tuple[float, float]:
        """Entropy over that of an even spread, and the share that falls on zero keys: means over the attention that
        media of modality `m` pay, or get."""
        kept = self.modality[self.text_and_media(attention)[1]] == m
        parts = (attention.weights, attention.reach, attention.is_value)
        parts = tuple(part[:, kept] if self.interaction == "text_query" else part[kept] for part in parts)
        weights, reach, is_value = (part[parts[1].any(1)] for part in parts)
        counts = reach.sum(1)
        entropy = -torch.xlogy(weights, weights).sum(1) / counts.clamp(min=2).log()
        entropy = torch.where(counts > 1, entropy, 1.0)
        return tuple(round(float(each.mean()), DIGITS) for each in (entropy, (weights * ~is_value).sum(1)))  # pyright: ignore
