"""A small Qwen2.5-VL with random weights: a decoder that two CPU cores train in a fraction of a second."""

from __future__ import annotations

from typing import Any

import torch

VOCABULARY = 2048  # small: the head, which has no adapter, would take most of a step


def small_qwen2_5_vl(
    *, width: int = 512, layers: int = 4, vocabulary: int = VOCABULARY, device: str = "cpu", seed: int = 0
) -> Any:
    """Frozen, float32, in Qwen2.5-VL's shape: heads of 64 (4 queries share a key), MLP 2.75 times as wide as it is.

    Its vision tower is as small as can be; chats of random tokens never reach it.
    """
    from transformers import AutoModelForImageTextToText, Qwen2_5_VLConfig

    heads = max(width // 64, 1)
    half = width // heads // 2  # of a head, split among time, height and width
    config = Qwen2_5_VLConfig(
        text_config={
            "hidden_size": width,
            "intermediate_size": width * 11 // 4,
            "num_hidden_layers": layers,
            "num_attention_heads": heads,
            "num_key_value_heads": max(heads // 4, 1),
            "vocab_size": vocabulary,
            "bos_token_id": vocabulary - 1,
            "eos_token_id": vocabulary - 2,
            "max_position_embeddings": 32768,
            "rope_parameters": {
                "rope_type": "default",
                "rope_theta": 1e6,
                "mrope_section": [half - 2 * (half * 3 // 8), half * 3 // 8, half * 3 // 8],
            },
        },
        vision_config={
            "depth": 1,
            "hidden_size": 32,
            "intermediate_size": 48,
            "num_heads": 2,
            "fullatt_block_indexes": [0],
            "out_hidden_size": width,
        },
        image_token_id=vocabulary - 3,
        video_token_id=vocabulary - 4,
        vision_start_token_id=vocabulary - 5,
        vision_end_token_id=vocabulary - 6,
        tie_word_embeddings=False,
    )
    with torch.random.fork_rng(), torch.device(device):
        torch.manual_seed(seed)
        model = AutoModelForImageTextToText.from_config(config)
    return model.requires_grad_(False).eval()
