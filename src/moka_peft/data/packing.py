"""Puts several multimodal samples into one row: their positions restart, and attention and turns stay apart.

transformers keeps the samples of a row apart where `attention_mask` is absent and `position_ids` restart: sdpa, eager
and flex attention get a block mask, FlashAttention splits the row, which it does for a batch of one row alone.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import pad

from moka_peft.data.mrope import qwen2_5_vl_positions, qwen2_vl_positions
from moka_peft.data.row_plan import fill_rows

IGNORED = -100

Positions = Callable[[Mapping[str, Tensor], Any, Any], Tensor]
"""(one sample's batch, processor, model config) -> position_ids [axes, S]"""


def text_positions(batch: Mapping[str, Tensor], processor: Any, config: Any) -> Tensor:
    """0, 1, ... [1, S]"""
    return torch.arange(batch["input_ids"].shape[1])[None]


FAMILIES: dict[str, Positions] = {  # `model_type` -> the positions of one sample
    "moka_composite": text_positions,
    "llava": text_positions,
    "qwen2_audio": text_positions,
    "qwen2_vl": qwen2_vl_positions,
    "qwen2_5_vl": qwen2_5_vl_positions,
}
DECODERS = {  # `model_type` of language models that were seen to keep the samples of a row apart
    *("llama", "mistral", "qwen2", "qwen3", "gemma", "gemma2", "gemma3_text", "phi3", "olmo2", "granite", "smollm3"),
    *("cohere", "qwen2_vl_text", "qwen2_5_vl_text", "qwen3_moe", "mixtral", "starcoder2", "glm", "phi", "stablelm"),
}
PLACED = (
    "input_ids",
    "labels",
    "attention_mask",
    "mm_token_type_ids",
    "token_type_ids",
)  # one column per token; the others are media
UNUSED = ("second_per_grid_ts",)  # served the positions, which are known


@dataclass(frozen=True)
class Packing:
    """How samples of one family share rows of `capacity` tokens; None: all samples of a call in one row.

    Under FlashAttention all rows are joined to one: transformers reads restarting positions of one row alone.
    """

    processor: Any
    config: Any
    capacity: int | None
    pad_id: int

    @classmethod
    def of(cls, processor: Any, config: Any, capacity: int | None) -> Packing:
        """Raises ValueError for a model whose samples could not be kept apart in a row."""
        if config is None:
            raise ValueError("`model_config` is missing: packing depends on the model. Pass `model.config`.")
        if config.model_type not in FAMILIES:
            raise ValueError(
                f"`packing` does not support {config.model_type}: expected one of {', '.join(FAMILIES)}. Train it "
                "without packing."
            )
        text, vision = config.get_text_config(), getattr(config, "vision_config", None)
        if text.model_type not in DECODERS:
            raise ValueError(
                f"`packing` does not know whether the language model {text.model_type} keeps the samples of a row "
                f"apart: expected one of {', '.join(sorted(DECODERS))}. Train it without packing."
            )
        if config.model_type == "llava" and getattr(vision, "model_type", "") == "pixtral":
            raise ValueError("`packing` does not support LLaVA with Pixtral's images of any size. Train without it.")
        pad_id = processor.tokenizer.pad_token_id
        if pad_id is None:
            raise ValueError("`processor.tokenizer` has no padding token. Set `pad_token`.")
        return cls(processor, config, capacity, pad_id)

    def pack(self, batches: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
        """One batch of few rows from one batch per sample: input_ids, labels [B, S], position_ids [B, S] or
        [4, B, S], and the media of all samples in the order of their placeholders.

        A row's padding is a segment of its own, without loss. `use_cache` is False: with a cache, which models fill
        even in training by default, transformers does not keep the samples apart.
        """
        lengths = [batch["input_ids"].shape[1] for batch in batches]
        rows = fill_rows(lengths, self.capacity or sum(lengths))
        parts = (self.config, self.config.get_text_config())
        if any("flash" in str(getattr(part, "_attn_implementation", "")) for part in parts):
            rows = [[index for row in rows for index in row]]
        width = max(sum(lengths[index] for index in row) for row in rows)
        positions = [FAMILIES[self.config.model_type](batch, self.processor, self.config) for batch in batches]
        packed = {
            "input_ids": self._rows(rows, [b["input_ids"] for b in batches], width, self.pad_id)[0],
            "labels": self._rows(rows, [without_first(b["labels"]) for b in batches], width, IGNORED)[0],
            "position_ids": self._rows(rows, positions, width, None),
        }
        if len(packed["position_ids"]) == 1:
            packed["position_ids"] = packed["position_ids"][0]
        order = [batches[index] for row in rows for index in row]
        return {**packed, **_join_media(order), "use_cache": False}

    @staticmethod
    def _rows(rows: list[list[int]], samples: Sequence[Tensor], width: int, filler: int | None) -> Tensor:
        """Values of all samples [axes, S_i], laid into rows: [axes, B, width]; None fills with 0, 1, ..."""
        joined = [torch.cat([samples[index] for index in row], dim=1) for row in rows]
        filled = []
        for values in joined:
            rest = width - values.shape[1]
            tail = pad(values.new_zeros(len(values), 0), (0, rest), value=filler or 0)
            filled.append(torch.cat([values, torch.arange(rest).expand_as(tail) if filler is None else tail], dim=1))
        return torch.stack(filled, dim=1)


def without_first(labels: Tensor) -> Tensor:
    """A sample's labels with none on its first token: in a row, the sample before it would predict that token."""
    return torch.cat([labels.new_full(labels[:, :1].shape, IGNORED), labels[:, 1:]], dim=1)


def _join_media(batches: Sequence[Mapping[str, Any]]) -> dict[str, Tensor]:
    names = dict.fromkeys(key for batch in batches for key in batch if key not in (*PLACED, *UNUSED))
    return {key: torch.cat([batch[key] for batch in batches if key in batch]) for key in names}


def padding_share(batch: Mapping[str, Tensor], pad_id: int) -> float:
    """Share of a batch's tokens that are padding: of a packed one, each row's last segment where it is padding."""
    if "attention_mask" in batch:
        return 1 - float(batch["attention_mask"].float().mean())
    filler = (batch["input_ids"] == pad_id) & (batch["labels"] == IGNORED)
    trailing = filler.flip(1).cumprod(1).sum(1)
    positions = batch["position_ids"] if batch["position_ids"].dim() == 2 else batch["position_ids"][0]
    last = positions[:, -1] + 1  # length of each row's last segment
    return float((last * (trailing >= last)).sum() / filler.numel())
