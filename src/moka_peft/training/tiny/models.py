"""Tiny random models in the place of published multimodal ones, each a folder with its processor."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import transformers
from transformers.models.llava.image_processing_pil_llava import LlavaImageProcessorPil
from transformers.models.qwen2_vl.image_processing_pil_qwen2_vl import Qwen2VLImageProcessorPil

from moka_peft.training.tiny.parts import SEGMENT_SECONDS, known_config, write_part
from moka_peft.training.tiny.sizes import shrink
from moka_peft.training.tiny.templates import chat_template
from moka_peft.training.tiny.tokenizers import llama2_tokenizer, qwen_tokenizer

PIXELS = 4 * 28 * 28  # of an image that Qwen-VL keeps: at most 4 tokens


@dataclass(frozen=True)
class Family:
    """How a family's models read. ids: fields of its config -> tokens; written: kinds of media -> what its template
    writes; process(tokenizer, config, chat_template): its processor; tokens: more special ones."""

    tokenize: Callable[[Sequence[str]], Any]
    process: Callable[[Any, Any, str], Any]
    written: Mapping[str, str]
    ids: Mapping[str, str]
    shape: str = "chatml"
    named: Mapping[str, str] = field(default_factory=dict)


def tiny_model(name: str, folder: Path) -> Path:
    """A model in the place of `name`, with its processor. Raises ValueError for an unknown one.

    Raises ImportError for Qwen-VL and Qwen-Omni where torchvision is missing: their processors take videos through it.
    """
    config = known_config(name, "name")
    if config.model_type not in FAMILIES:
        known = ", ".join(FAMILIES)
        raise ValueError(f"`model.name` has no tiny stand-in: expected a model of {known}, got {name}.")
    family = FAMILIES[config.model_type]
    tokenizer = family.tokenize([*family.ids.values()])
    for key, text in family.named.items():
        setattr(tokenizer, key, text)
    small: Any = shrink(config, tokenizer, family.ids)
    processor = family.process(tokenizer, small, chat_template(family.shape, dict(family.written)))
    return write_part(folder, name, small, processor)


def _llava(tokenizer: Any, config: Any, template: str) -> Any:
    side = {"height": config.vision_config.image_size, "width": config.vision_config.image_size}
    images = LlavaImageProcessorPil(size={"shortest_edge": side["height"]}, crop_size=side)
    settings = {"patch_size": config.vision_config.patch_size, "num_additional_image_tokens": 1}
    strategy = config.vision_feature_select_strategy
    return transformers.LlavaProcessor(
        images, tokenizer, vision_feature_select_strategy=strategy, chat_template=template, **settings
    )


def _hearing(config: Any) -> Any:
    mels = config.audio_config.num_mel_bins
    return transformers.WhisperFeatureExtractor(feature_size=mels, chunk_length=SEGMENT_SECONDS)


def _qwen2_audio(tokenizer: Any, config: Any, template: str) -> Any:
    return transformers.Qwen2AudioProcessor(_hearing(config), tokenizer, chat_template=template)


def _seeing() -> dict[str, Any]:
    size = {"shortest_edge": 28 * 28, "longest_edge": PIXELS}
    return {
        "image_processor": Qwen2VLImageProcessorPil(size=size),
        "video_processor": transformers.Qwen2VLVideoProcessor(size=size),
    }


def _qwen2_5_vl(tokenizer: Any, config: Any, template: str) -> Any:
    return transformers.Qwen2_5_VLProcessor(tokenizer=tokenizer, chat_template=template, **_seeing())


def _qwen2_5_omni(tokenizer: Any, config: Any, template: str) -> Any:
    return transformers.Qwen2_5OmniProcessor(
        feature_extractor=_hearing(config), tokenizer=tokenizer, chat_template=template, **_seeing()
    )


VISION_MARKS = {"vision_start_token_id": "<|vision_start|>", "vision_end_token_id": "<|vision_end|>"}
OMNI_TOKENS = {f"{kind}_token": f"<|{kind.upper()}|>" for kind in ("image", "video", "audio")}
OMNI_MARKS = {
    "vision_start_token_id": "<|vision_bos|>", "vision_end_token_id": "<|vision_eos|>",
    "audio_start_token_id": "<|audio_bos|>", "audio_end_token_id": "<|audio_eos|>",
}  # fmt: skip

FAMILIES = {
    "llava": Family(
        llama2_tokenizer,
        _llava,
        {"image": "<image>\n"},
        {"image_token_index": "<image>", "pad_token_id": "<pad>"},
        "user_colon",
        {"pad_token": "<pad>"},
    ),
    "qwen2_audio": Family(
        lambda special: qwen_tokenizer(["<|audio_bos|>", "<|audio_eos|>", *special]),
        _qwen2_audio,
        {"audio": "<|audio_bos|><|AUDIO|><|audio_eos|>\n"},
        {"audio_token_index": "<|AUDIO|>"},
    ),
    "qwen2_5_vl": Family(
        qwen_tokenizer,
        _qwen2_5_vl,
        {kind: f"<|vision_start|><|{kind}_pad|><|vision_end|>" for kind in ("image", "video")},
        {"image_token_id": "<|image_pad|>", "video_token_id": "<|video_pad|>", **VISION_MARKS},
    ),
    "qwen2_5_omni_thinker": Family(
        qwen_tokenizer,
        _qwen2_5_omni,
        {
            "audio": "<|audio_bos|><|AUDIO|><|audio_eos|>",
            **{kind: f"<|vision_bos|><|{kind.upper()}|><|vision_eos|>" for kind in ("image", "video")},
        },
        {**{f"{name}_index": text for name, text in OMNI_TOKENS.items()}, **OMNI_MARKS},
        named=OMNI_TOKENS,
    ),
}
"""By the model type of the published config."""
