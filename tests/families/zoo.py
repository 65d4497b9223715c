"""The families: a tiny random model of every kind of multimodal model, and inputs for it."""

from __future__ import annotations

from collections.abc import Callable

from transformers import MllamaConfig, MllamaForConditionalGeneration, PreTrainedModel

from .layout import IMAGE, Family
from .weights import TEXT, builder
from .zoo_audio import AUDIO_FAMILIES
from .zoo_gemma import GEMMA_FAMILIES
from .zoo_llava import LLAVA_FAMILIES
from .zoo_omni import OMNI_FAMILIES
from .zoo_qwen import QWEN_FAMILIES
from .zoo_vision import VISION_FAMILIES

FAMILIES: dict[str, Family] = {
    family.name: family
    for family in (
        *QWEN_FAMILIES,
        *OMNI_FAMILIES,
        *AUDIO_FAMILIES,
        *LLAVA_FAMILIES,
        *GEMMA_FAMILIES,
        *VISION_FAMILIES,
    )
}

# Models without media tokens in their sequence: there is nothing to route, so they have no inputs here.
REFUSED: dict[str, Callable[[], PreTrainedModel]] = {
    "mllama": builder(
        MllamaForConditionalGeneration,
        lambda: MllamaConfig(
            vision_config=dict(
                hidden_size=32,
                num_hidden_layers=1,
                num_global_layers=1,
                attention_heads=4,
                intermediate_size=48,
                vision_output_dim=64,
                image_size=16,
                patch_size=8,
                max_num_tiles=1,
                intermediate_layers_indices=[0],
                supported_aspect_ratios=[[1, 1]],
            ),
            text_config={**TEXT, "cross_attention_layers": [1]},
            image_token_index=IMAGE,
        ),
    )
}
