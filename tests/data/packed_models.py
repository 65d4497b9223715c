"""Tiny random models of the families that can be packed, each with a real processor of its own vocabulary."""

from typing import Any

import torch
import transformers
from transformers import CLIPVisionConfig, Qwen2AudioConfig, Qwen2AudioEncoderConfig

from moka_peft.composite import CompositeForConditionalGeneration, tiny_avt_processor
from moka_peft.composite.tiny_avt import tiny_avt_config
from moka_peft.data import Collator, Sample
from moka_peft.data.row_plan import fill_rows

from ..routing import test_real_processors as real
from ..routing.conftest import CHATML, USER_COLON, train_like

TEXT = dict(hidden_size=32, intermediate_size=48, num_hidden_layers=2, num_attention_heads=2, num_key_value_heads=1)
ROPE = {"rope_type": "default", "rope_theta": 10000.0, "mrope_section": [4, 2, 2]}
VISION = dict(depth=2, num_heads=2, patch_size=14, hidden_size=32)
VISION_2_5 = {**VISION, "intermediate_size": 48, "out_hidden_size": 32, "window_size": 56, "fullatt_block_indexes": [1]}


def composite(attention: str) -> Any:
    processor, config = tiny_avt_processor(), tiny_avt_config()
    return model_of(CompositeForConditionalGeneration, config, attention), processor


def llava(attention: str) -> Any:
    config, processor = real.llava(train_like, {"user_colon": USER_COLON})
    clip = CLIPVisionConfig(
        hidden_size=32,
        intermediate_size=48,
        num_hidden_layers=2,
        num_attention_heads=2,
        image_size=28,
        patch_size=14,
    )
    text = transformers.LlamaConfig(vocab_size=len(processor.tokenizer), **TEXT)
    config = transformers.LlavaConfig(vision_config=clip, text_config=text, image_token_index=config.image_token_index)
    return model_of(transformers.LlavaForConditionalGeneration, config, attention), padded(processor)


def qwen(name: str, vision: dict[str, Any], attention: str) -> Any:
    classes = [getattr(transformers, f"{name}{part}") for part in ("Processor", "Config", "ForConditionalGeneration")]
    config, processor = real.qwen(train_like, classes[0], classes[1], "qwen2_5_vl")
    tokens = {n: getattr(config, n) for n in ("image_token_id", "video_token_id", "vision_start_token_id")}
    text = {**TEXT, "vocab_size": len(processor.tokenizer), "rope_parameters": ROPE}
    config = classes[1](text_config=text, vision_config=vision, **tokens)
    return model_of(classes[2], config, attention), padded(processor)


def qwen2_vl(attention: str) -> Any:
    return qwen("Qwen2VL", {**VISION, "embed_dim": 32, "mlp_ratio": 2}, attention)


def qwen2_5_vl(attention: str) -> Any:
    return qwen("Qwen2_5_VL", VISION_2_5, attention)


def qwen2_audio(attention: str) -> Any:
    config, processor = real.qwen2_audio(train_like, {})
    processor.chat_template = CHATML.replace(real.WRITTEN, "'<|audio_bos|><|AUDIO|><|audio_eos|>'")
    audio = Qwen2AudioEncoderConfig(
        d_model=16,
        encoder_layers=1,
        encoder_attention_heads=2,
        encoder_ffn_dim=16,
        num_mel_bins=8,
    )
    text = transformers.Qwen2Config(vocab_size=len(processor.tokenizer), **TEXT)
    config = Qwen2AudioConfig(audio_config=audio, text_config=text, audio_token_index=config.audio_token_index)
    return model_of(transformers.Qwen2AudioForConditionalGeneration, config, attention), padded(processor)


FAMILIES = {
    composite: ("image", "audio"),
    llava: ("image",),
    qwen2_vl: ("image",),
    qwen2_5_vl: ("image",),
    qwen2_audio: ("audio",),
}


def model_of(cls: Any, config: Any, attention: str) -> Any:
    torch.manual_seed(0)
    return cls._from_config(config, attn_implementation=attention)


def padded(processor: Any) -> Any:
    processor.tokenizer.pad_token = processor.tokenizer.eos_token
    return processor


def cast(batch: dict[str, Any], dtype: torch.dtype) -> dict[str, Any]:
    return {k: v.to(dtype) if torch.is_tensor(v) and v.is_floating_point() else v for k, v in batch.items()}


def packed_and_alone(model: Any, processor: Any, samples: list[Sample]) -> Any:
    """The packed batch of a few rows, the batches of the samples alone, and where each begins: [(i, row, column)]."""
    alone = [Collator(processor)([sample]) for sample in samples]
    lengths = [batch["input_ids"].shape[1] for batch in alone]
    capacity = max(max(lengths), sum(lengths) // 2 + 10)
    config = model.config
    packed = Collator(processor, packing=True, max_length=capacity, model_config=config)(samples)
    places = []
    for row, indices in enumerate(fill_rows(lengths, capacity)):
        column = 0
        for index in indices:
            places.append((index, row, column))
            column += lengths[index]
    assert 1 < len(packed["input_ids"]) < 4 and packed["input_ids"].shape[1] <= capacity
    return packed, alone, places
