"""Tiny Gemma 3, 3n and 4 and PaliGemma models: image tokens that see each other, layers that share keys and values."""

from __future__ import annotations

import inspect

import torch
from torch import nn
from transformers import (
    AutoModel,
    Gemma3Config,
    Gemma3ForConditionalGeneration,
    Gemma3nAudioConfig,
    Gemma3nConfig,
    Gemma3nForConditionalGeneration,
    Gemma3nTextConfig,
    Gemma3nVisionConfig,
    Gemma3TextConfig,
    Gemma4AudioConfig,
    Gemma4Config,
    Gemma4ForConditionalGeneration,
    Gemma4TextConfig,
    Gemma4VisionConfig,
    GemmaConfig,
    PaliGemmaConfig,
    PaliGemmaForConditionalGeneration,
    PreTrainedModel,
    SiglipVisionConfig,
)
from transformers.modeling_outputs import BaseModelOutput

from .layout import (
    AUDIO,
    AUDIO_END,
    AUDIO_START,
    IMAGE,
    IMAGE_END,
    IMAGE_START,
    TIME,
    VIDEO,
    Family,
    Item,
    Tensors,
    normal,
)
from .weights import TEXT, TOWER, VOCABULARY, builder
from .zoo_llava import PIXELS, image

KINDS = ["sliding_attention", "full_attention"]
GEMMA = {**TEXT, "head_dim": 8, "sliding_window": 256}  # longer than any row here
SHARING = {**GEMMA, "num_hidden_layers": 4, "layer_types": KINDS * 2, "num_kv_shared_layers": 2}
FRAMES, MELS, PATCH = 24, 16, 4
GRID = torch.cartesian_prod(torch.arange(4), torch.arange(4))[None]  # column and row of 16 patches


def audio(tokens: int) -> Item:
    """A spectrogram [1, frames, mels] and its mask; it becomes `tokens` tokens."""

    def draw(generator: torch.Generator) -> Tensors:
        mask = torch.ones(1, FRAMES, dtype=torch.bool)
        return {"input_features": normal(generator, 1, FRAMES, MELS), "input_features_mask": mask}

    return Item((AUDIO_START, *[AUDIO] * tokens, AUDIO_END), draw)


def draw_patches(generator: torch.Generator) -> Tensors:
    return {"pixel_values": normal(generator, 1, 16, 3 * PATCH**2), "image_position_ids": GRID}


FRAMES_OF_ALL_VIDEOS = "num_frames_per_video" in inspect.signature(Gemma4ForConditionalGeneration.forward).parameters


def draw_frames(generator: torch.Generator) -> Tensors:
    """Two frames of 16 patches; in transformers 5.17, unlike 5.23, videos have a dimension of their own."""
    frames = {
        "pixel_values_videos": normal(generator, 2, 16, 3 * PATCH**2),
        "video_position_ids": GRID.expand(2, -1, -1),
    }
    if FRAMES_OF_ALL_VIDEOS:
        return {**frames, "num_frames_per_video": torch.tensor([2])}
    return {name: tensor[None] for name, tensor in frames.items()}


GEMMA3 = Family(
    "gemma3",
    builder(
        Gemma3ForConditionalGeneration,
        lambda: Gemma3Config(
            vision_config=SiglipVisionConfig(**TOWER, **PIXELS, vision_use_head=False),
            text_config=Gemma3TextConfig(**GEMMA, query_pre_attn_scalar=8, layer_types=KINDS),
            mm_tokens_per_image=4,
            image_token_index=IMAGE,
            boi_token_index=IMAGE_START,
            eoi_token_index=IMAGE_END,
        ),
    ),
    {"i": image((IMAGE_START, *[IMAGE] * 4, IMAGE_END))},
    type_ids="token_type_ids",
)


class ConvolutionConfig(Gemma3nVisionConfig):
    """The config of `Convolutions`."""

    model_type = "tiny_convolutions"


class Convolutions(PreTrainedModel):
    """In place of Gemma 3n's vision tower: pixels [B, 3, 16, 16] to features [B, C, 2, 2]."""

    config_class = ConvolutionConfig

    def __init__(self, config: ConvolutionConfig):
        super().__init__(config)
        self.patches = nn.Conv2d(3, config.hidden_size, 8, 8)
        self.mix = nn.Conv2d(config.hidden_size, config.hidden_size, 1)
        self.post_init()

    def forward(self, pixel_values: torch.Tensor, **_: object) -> BaseModelOutput:
        return BaseModelOutput(self.mix(self.patches(pixel_values).relu()))


AutoModel.register(ConvolutionConfig, Convolutions, exist_ok=True)
GEMMA3N = Family(
    "gemma3n",
    builder(
        Gemma3nForConditionalGeneration,
        lambda: Gemma3nConfig(
            vision_config=ConvolutionConfig(
                hidden_size=32, vocab_size=8, vocab_offset=VOCABULARY - 16, architecture="none"
            ),
            audio_config=Gemma3nAudioConfig(
                vocab_size=8,
                vocab_offset=VOCABULARY - 8,
                input_feat_size=MELS,
                hidden_size=32,
                conf_attention_chunk_size=4,
                conf_attention_context_left=5,
                conf_num_attention_heads=4,
                conf_num_hidden_layers=2,
                conf_reduction_factor=2,
                sscp_conv_channel_size=[8, 4],
            ),
            text_config=Gemma3nTextConfig(
                **SHARING,
                vocab_size_per_layer_input=VOCABULARY - 16,
                hidden_size_per_layer_input=8,
                altup_num_inputs=2,
                laurel_rank=4,
                activation_sparsity_pattern=[0.5, 0.0, 0.0, 0.0],
            ),
            audio_soft_tokens_per_image=4,
            vision_soft_tokens_per_image=4,
            image_token_id=IMAGE,
            boi_token_id=IMAGE_START,
            eoi_token_id=IMAGE_END,
            audio_token_id=AUDIO,
            boa_token_id=AUDIO_START,
            eoa_token_id=AUDIO_END,
        ),
    ),
    {"i": image((IMAGE_START, *[IMAGE] * 4, IMAGE_END)), "a": audio(4)},
    type_ids="token_type_ids",
    note="Two convolutions stand in for the vision tower, which needs timm: the model can not be loaded again.",
)
GEMMA4 = Family(
    "gemma4",
    builder(
        Gemma4ForConditionalGeneration,
        lambda: Gemma4Config(
            vision_config=Gemma4VisionConfig(
                **TOWER,
                num_key_value_heads=4,
                head_dim=8,
                patch_size=PATCH,
                pooling_kernel_size=2,
                position_embedding_size=8,
            ),
            audio_config=Gemma4AudioConfig(
                hidden_size=32,
                num_hidden_layers=2,
                num_attention_heads=4,
                subsampling_conv_channels=[16, 8],
                attention_chunk_size=4,
                attention_context_left=5,
                output_proj_dims=32,
            ),
            text_config=Gemma4TextConfig(
                **SHARING,
                global_head_dim=16,
                vocab_size_per_layer_input=VOCABULARY,
                hidden_size_per_layer_input=8,
                use_bidirectional_attention="vision",
            ),
            image_token_id=IMAGE,
            video_token_id=VIDEO,
            audio_token_id=AUDIO,
            boi_token_id=IMAGE_START,
            eoi_token_id=IMAGE_END,
            boa_token_id=AUDIO_START,
            eoa_token_index=AUDIO_END,
        ),
    ),
    {
        "i": Item((IMAGE_START, *[IMAGE] * 4, IMAGE_END), draw_patches),
        "v": Item((TIME, IMAGE_START, *[VIDEO] * 4, IMAGE_END) * 2, draw_frames),
        "a": audio(6),
    },
    type_ids="mm_token_type_ids",
)
PALIGEMMA = Family(
    "paligemma",
    builder(
        PaliGemmaForConditionalGeneration,
        lambda: PaliGemmaConfig(
            vision_config=SiglipVisionConfig(**TOWER, **PIXELS, vision_use_head=False),
            text_config=GemmaConfig(**TEXT, head_dim=8),
            image_token_index=IMAGE,
            vocab_size=VOCABULARY,
            projection_dim=32,
            hidden_size=32,
        ),
    ),
    {"i": image((IMAGE,) * 4)},
    type_ids="token_type_ids",
    types={},
    generated_type=1,
    note="Every token of a prompt sees the whole prompt, as its token types are 0; only what is generated is causal.",
)

GEMMA_FAMILIES = (GEMMA3, GEMMA3N, GEMMA4, PALIGEMMA)
