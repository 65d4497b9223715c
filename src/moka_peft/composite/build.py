"""Composes a composite from pretrained parts: a language model, encoders, their processors and a tokenizer."""

from typing import Any

import torch
from transformers import (
    AutoFeatureExtractor,
    AutoImageProcessor,
    AutoModelForCausalLM,
    AutoTokenizer,
    PreTrainedModel,
    PreTrainedTokenizerBase,
)

from .config import MEDIA_PARTS, CompositeConfig
from .encoders import load_encoder
from .model import CompositeForConditionalGeneration
from .placeholders import PLACEHOLDERS
from .processor import CompositeProcessor


def build_composite(
    text: str | PreTrainedModel,
    vision: str | PreTrainedModel | None = None,
    audio: str | PreTrainedModel | None = None,
    tokenizer: str | PreTrainedTokenizerBase | None = None,
    image_processor: Any = None,
    feature_extractor: Any = None,
    *,
    segment_seconds: float | None = None,
    chat_template: str | None = None,
    dtype: str | torch.dtype = "auto",
    **settings: Any,
) -> tuple[CompositeForConditionalGeneration, CompositeProcessor]:
    """Joins pretrained parts, each a hub id, a folder or a model, and gives them fresh projectors.

    Tokenizer, image processor and feature extractor come from their part's place where that is a name. The
    placeholders are added to the tokenizer, and the language model gets rows for them. `segment_seconds` is the
    length audio is cut into, the feature extractor's own by default. `settings` are fields of `CompositeConfig`:
    `vision_projector`, `audio_projector`, `vision_feature_layers`, `vision_feature_select`, ...
    Raises ValueError where a part is missing.
    """
    tokenizer = _resolve(tokenizer, text, AutoTokenizer, "tokenizer")
    image_processor = _resolve(image_processor, vision, AutoImageProcessor, "image_processor")
    feature_extractor = _resolve(feature_extractor, audio, AutoFeatureExtractor, "feature_extractor")
    parts = {"text_model": AutoModelForCausalLM.from_pretrained(text, dtype=dtype) if isinstance(text, str) else text}
    for name, source in {"vision_encoder": vision, "audio_encoder": audio}.items():
        if source is not None:
            parts[name] = load_encoder(source, dtype=dtype) if isinstance(source, str) else source
    token_ids = add_placeholders(parts["text_model"], tokenizer, vision=vision is not None, audio=audio is not None)
    config = CompositeConfig(
        text_config=parts["text_model"].config,
        vision_config=parts["vision_encoder"].config if vision is not None else None,
        audio_config=parts["audio_encoder"].config if audio is not None else None,
        **token_ids,
        **settings,
    )
    model = CompositeForConditionalGeneration(config, parts)
    processor = CompositeProcessor(image_processor, feature_extractor, tokenizer, chat_template=chat_template)
    return model, fit_processor(processor, model, segment_seconds)


def add_placeholders(
    text_model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, *, vision: bool, audio: bool
) -> dict[str, int]:
    """Adds the placeholders of the parts there are, as special tokens, and returns their ids by config field.

    New rows of the embeddings and of the head are the mean of the old ones: no randomness, and a placeholder is no
    likelier than an average token. A tokenizer without a padding token pads with its end token.
    """
    present = {"vision": vision, "audio": audio}
    names = [name for part, part_names in MEDIA_PARTS.items() if present[part] for name in part_names]
    tokenizer.add_special_tokens(
        {"additional_special_tokens": [PLACEHOLDERS[name] for name in names]}, replace_additional_special_tokens=False
    )
    if tokenizer.pad_token is None:
        tokenizer.pad_token = tokenizer.eos_token
    _grow_embeddings(text_model, len(tokenizer))
    return {f"{name}_token_id": tokenizer.convert_tokens_to_ids(PLACEHOLDERS[name]) for name in names}


def fit_processor(
    processor: CompositeProcessor, model: CompositeForConditionalGeneration, segment_seconds: float | None = None
) -> CompositeProcessor:
    """Sets how many embeddings the model makes of an image and of a segment, by running it on blank ones."""
    if processor.image_processor is not None:
        processor.tokens_per_image = model.embed_media("image", processor.blank_pixels()).shape[1]
    if processor.feature_extractor is not None:
        processor.segment_seconds = segment_seconds or _own_segment_seconds(processor.feature_extractor)
        processor.tokens_per_segment = model.embed_media("audio", processor.blank_features()).shape[1]
    return processor


def _resolve(part: Any, source: Any, loader: Any, name: str) -> Any:
    """The given tokenizer or processor, loaded where it is a name, else the one that lies with its model."""
    if source is None:
        return None
    if part is None and not isinstance(source, str):
        raise ValueError(f"`{name}` is missing: a model was given rather than its name. Pass the `{name}` too.")
    place = source if part is None else part
    return loader.from_pretrained(place) if isinstance(place, str) else place


@torch.no_grad()
def _grow_embeddings(text_model: PreTrainedModel, vocab_size: int) -> None:
    """Adds embedding and head rows up to `vocab_size`, each the mean of the old ones."""
    old = text_model.get_input_embeddings().weight.shape[0]
    if vocab_size <= old:
        return
    text_model.resize_token_embeddings(vocab_size, mean_resizing=False)
    for module in (text_model.get_input_embeddings(), text_model.get_output_embeddings()):
        module.weight[old:] = module.weight[:old].float().mean(0).to(module.weight.dtype)


def _own_segment_seconds(feature_extractor: Any) -> float:
    """The clip length that a feature extractor is made for, in seconds."""
    if getattr(feature_extractor, "chunk_length", None):
        return float(feature_extractor.chunk_length)
    if getattr(feature_extractor, "max_length", None):
        return feature_extractor.max_length * 0.01
    raise ValueError("`segment_seconds` is missing: this feature extractor has no length of its own. Give it.")
