"""Models in the shapes of Qwen2.5-VL-7B and LLaMA-3-8B with random weights: nothing is downloaded.

`tiny` keeps the vocabularies and token ids, so that the same chats run on a small CPU.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from transformers import (
    AutoModelForCausalLM,
    AutoModelForImageTextToText,
    LlamaConfig,
    PreTrainedConfig,
    PreTrainedModel,
    Qwen2_5_VLConfig,
)

from moka_peft import RoutingSpec


@dataclass(frozen=True)
class Medium:
    """One image or clip in a chat: its placeholder token and the markers around it."""

    placeholder: int
    before: tuple[int, ...] = ()
    after: tuple[int, ...] = ()
    is_image: bool = False  # the model has a vision tower and takes pixel values for it


@dataclass(frozen=True)
class Shape:
    """A model's configuration, and the token ids of its chat.

    `media`: one per user turn. Ids from `first_special` on are never text.
    """

    name: str
    configure: Callable[[bool], PreTrainedConfig]
    auto_class: Any
    placeholders: Mapping[str, tuple[int, ...]]
    media: tuple[Medium, ...]
    user_open: tuple[int, ...]
    user_close: tuple[int, ...]
    answer_open: tuple[int, ...]
    answer_close: tuple[int, ...]
    pad: int
    first_special: int

    @property
    def spec(self) -> RoutingSpec:
        """The routing of this chat, written by hand as there is no processor."""
        markers = dict.fromkeys(token for medium in self.media for token in (*medium.before, *medium.after))
        return RoutingSpec(
            self.placeholders, user_open=(self.user_open,), user_close=(self.user_close,), skip=tuple(markers)
        )

    def build(self, *, tiny: bool, device: str, dtype: torch.dtype = torch.bfloat16) -> PreTrainedModel:
        """The frozen model, its random weights drawn on `device`: no copy passes through another memory."""
        with torch.device(device):
            model = self.auto_class.from_config(self.configure(tiny), dtype=dtype)
        return model.requires_grad_(False).eval()


TINY_TEXT = dict(
    hidden_size=64, intermediate_size=128, num_hidden_layers=2, num_attention_heads=4, num_key_value_heads=2
)
QWEN_TEXT = dict(
    hidden_size=3584, intermediate_size=18944, num_hidden_layers=28, num_attention_heads=28, num_key_value_heads=4
)
QWEN_VISION = dict(
    depth=32, hidden_size=1280, intermediate_size=3420, num_heads=16, fullatt_block_indexes=[7, 15, 23, 31]
)
TINY_VISION = dict(depth=2, hidden_size=32, intermediate_size=48, num_heads=2, fullatt_block_indexes=[1])
LLAMA_TEXT = dict(
    hidden_size=4096, intermediate_size=14336, num_hidden_layers=32, num_attention_heads=32, num_key_value_heads=8
)


def qwen2_5_vl_config(tiny: bool) -> Qwen2_5_VLConfig:
    """Qwen2.5-VL-7B-Instruct's numbers."""
    text = TINY_TEXT if tiny else QWEN_TEXT
    sections = [2, 3, 3] if tiny else [16, 24, 24]  # half a head's width: time, height, width
    return Qwen2_5_VLConfig(
        text_config={
            **text,
            "vocab_size": 152064,
            "max_position_embeddings": 128000,
            "rms_norm_eps": 1e-6,
            "rope_parameters": {"rope_type": "default", "rope_theta": 1e6, "mrope_section": sections},
        },
        vision_config={
            **(TINY_VISION if tiny else QWEN_VISION),
            "out_hidden_size": text["hidden_size"],
            "tokens_per_second": 2,
        },
        image_token_id=151655,
        video_token_id=151656,
        vision_start_token_id=151652,
        vision_end_token_id=151653,
        tie_word_embeddings=False,
    )


def llama_3_config(tiny: bool) -> LlamaConfig:
    """Meta-Llama-3-8B-Instruct's numbers."""
    return LlamaConfig(
        **(TINY_TEXT if tiny else LLAMA_TEXT),
        vocab_size=128256,
        max_position_embeddings=8192,
        rms_norm_eps=1e-5,
        rope_parameters={"rope_type": "default", "rope_theta": 500000.0},
        bos_token_id=128000,
        eos_token_id=128009,
        tie_word_embeddings=False,
    )


IMAGE = Medium(151655, before=(151652,), after=(151653,), is_image=True)
SHAPES = {
    shape.name: shape
    for shape in (
        Shape(
            name="qwen2.5-vl-7b",
            configure=qwen2_5_vl_config,
            auto_class=AutoModelForImageTextToText,
            placeholders={"visual": (151655, 151656)},
            media=(IMAGE, IMAGE),
            user_open=(151644, 872, 198),  # <|im_start|>user\n
            user_close=(151645, 198),
            answer_open=(151644, 77091, 198),  # <|im_start|>assistant\n
            answer_close=(151645, 198),
            pad=151643,
            first_special=151643,
        ),
        Shape(
            name="llama-3-8b",
            configure=llama_3_config,
            auto_class=AutoModelForCausalLM,
            placeholders={"visual": (128011,), "audio": (128012,)},  # reserved ids stand for encoded media
            media=(Medium(128011), Medium(128012)),
            user_open=(128006, 882, 128007, 271),  # <|start_header_id|>user<|end_header_id|>\n\n
            user_close=(128009,),
            answer_open=(128006, 78191, 128007, 271),
            answer_close=(128009,),
            pad=128004,
            first_special=128000,
        ),
    )
}
