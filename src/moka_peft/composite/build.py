"""Composes a composite from pretrained parts: a language model, encoders, their processors and a tokenizer."""

from collections.abc import Callable, Iterable
from typing import Any

import torch
from tokenizers import AddedToken
from transformers import AutoTokenizer, PreTrainedModel

from .config import PART_FIELDS, CompositeConfig
from .encoders import load_encoder, load_feature_extractor
from .kinds import MEDIA_PARTS
from .media import load_image_processor
from .model import CompositeForConditionalGeneration
from .placeholders import placeholder_of
from .processor import CompositeProcessor
from .text_models import load_text_model

OTHER_FIELDS = {"encoder", "shape", "reader", "projector", "feature_layers", "feature_select"}


def build_composite(
    text: str | PreTrainedModel,
    vision: str | PreTrainedModel | None = None,
    audio: str | PreTrainedModel | None = None,
    tokenizer: Any = None,
    image_processor: Any = None,
    feature_extractor: Any = None,
    *,
    segment_seconds: float | None = None,
    chat_template: str | None = None,
    dtype: str | torch.dtype = "auto",
    others: dict[str, dict[str, Any]] | None = None,
    **settings: Any,
) -> tuple[CompositeForConditionalGeneration, CompositeProcessor]:
    """Joins pretrained parts, each a hub id, a folder or a model, and gives them fresh projectors.

    Tokenizer, image processor and feature extractor are objects or names; by default they come from where their
    model lies. The placeholders are added to the tokenizer, and the language model gets rows for them.
    `segment_seconds` is the length audio is cut into, by default the feature extractor's own. All parts take the
    language model's `dtype`. `settings` are fields of `CompositeConfig`: `vision_projector`,
    `vision_feature_layers`, ... A Qwen2.5-VL as `text` gives its language model. Raises ValueError where a part is
    missing, OSError where none lies under its name.

    `others` adds kinds of media by name: `{"series": {"encoder": ..., "shape": (64, 1), "projector": {...}, "reader":
    ..., "feature_layers": ..., "feature_select": ...}}`, of which encoder and shape are required. A medium is arrays
    of that shape, which `reader` may make from something else, see `read_pieces`.

    Fresh projectors are drawn from torch's generator: seed it first, and the same parts give the same composite.
    """
    tokenizer = _resolve(tokenizer, text, AutoTokenizer.from_pretrained, "tokenizer")
    image_processor = _resolve(image_processor, vision, load_image_processor, "image_processor")
    feature_extractor = _resolve(feature_extractor, audio, load_feature_extractor, "feature_extractor")
    text_model = _load("text", text, load_text_model, dtype=dtype)
    sections = {kind: _other_section(kind, section) for kind, section in (others or {}).items()}
    sources = {"vision": vision, "audio": audio} | {kind: section["encoder"] for kind, section in sections.items()}
    encoders: dict[str, Any] = {
        part: _load(part, source, load_encoder, dtype=text_model.dtype)
        for part, source in sources.items()
        if source is not None
    }
    ids = add_placeholders(text_model, tokenizer, vision=vision is not None, audio=audio is not None, others=sections)
    model = _join(text_model, encoders, sections, ids, settings)
    model.generation_config.pad_token_id = tokenizer.pad_token_id
    shapes = {kind: {"shape": list(section["shape"])} for kind, section in sections.items()}
    readers = {kind: section["reader"] for kind, section in sections.items() if section.get("reader")}
    processor = CompositeProcessor(
        image_processor, feature_extractor, tokenizer, chat_template=chat_template, other_media=shapes
    )
    processor.readers |= readers
    return model, fit_processor(processor, model, segment_seconds)


def _join(
    text_model: Any,
    encoders: dict[str, Any],
    sections: dict[str, dict[str, Any]],
    ids: dict[str, Any],
    settings: dict[str, Any],
) -> CompositeForConditionalGeneration:
    """The parts as one model, with projectors where the language model is and in its dtype."""
    config = CompositeConfig(
        text_config=text_model.config,
        **{f"{part}_config": encoders[part].config for part in MEDIA_PARTS if part in encoders},
        other_media={kind: _other_media(kind, section, encoders, ids) for kind, section in sections.items()},
        **{name: token_id for name, token_id in ids.items() if name.removesuffix("_token_id") not in sections},
        **settings,
    )
    parts = {"text_model": text_model, **{f"{part}_encoder": encoder for part, encoder in encoders.items()}}
    with text_model.device:
        model = CompositeForConditionalGeneration(config, parts).eval()
    _cast(model, text_model.dtype)
    return model


def add_placeholders(
    text_model: PreTrainedModel, tokenizer: Any, *, vision: bool, audio: bool, others: Iterable[str] = ()
) -> dict[str, Any]:
    """Adds the placeholders of the parts there are, as special tokens, and returns their ids by config field.

    New rows of the embeddings and of the head are the mean of the old ones: no randomness, and a placeholder is no
    likelier than an average token. A tokenizer without a padding token pads with its end token.
    """
    present = {"vision": vision, "audio": audio}
    kinds = [kind for part, part_kinds in MEDIA_PARTS.items() if present[part] for kind in part_kinds] + [*others]
    tokens = [AddedToken(placeholder_of(kind), normalized=False, special=True) for kind in kinds]
    tokenizer.add_tokens(tokens, special_tokens=True)
    if tokenizer.pad_token is None:
        tokenizer.pad_token = tokenizer.eos_token
    _grow_embeddings(text_model, len(tokenizer))
    return {f"{kind}_token_id": tokenizer.convert_tokens_to_ids(placeholder_of(kind)) for kind in kinds}


@torch.no_grad()
def fit_processor(
    processor: CompositeProcessor, model: CompositeForConditionalGeneration, segment_seconds: float | None = None
) -> CompositeProcessor:
    """Sets how many embeddings the model makes of an image, a segment and a piece of another medium, by running it on
    blank ones."""
    if processor.image_processor is not None:
        pixels = processor.blank_pixels().to(model.device)
        processor.tokens_per_image = model.embed_media("image", pixels).shape[1]
    if processor.feature_extractor is not None:
        processor.segment_seconds = segment_seconds or _own_segment_seconds(processor.feature_extractor)
        features = processor.blank_features().to(model.device)
        processor.tokens_per_segment = model.embed_media("audio", features).shape[1]
    for kind, medium in processor.other_media.items():
        blank = torch.zeros(1, *medium["shape"], device=model.device)
        medium["tokens"] = model.embed_media(kind, blank).shape[1]
    return processor


def _cast(model: torch.nn.Module, dtype: torch.dtype) -> None:
    """Gives a model's weights a dtype, as loading does: `model.to` would round the angles of rotary positions too."""
    for weight in model.state_dict(keep_vars=True).values():
        if weight.is_floating_point():
            weight.data = weight.data.to(dtype)


def _other_section(kind: str, section: dict[str, Any]) -> dict[str, Any]:
    """What `others` holds for one kind. Raises ValueError for a field that is missing or unknown."""
    if missing := [field for field in ("encoder", "shape") if section.get(field) is None]:
        raise ValueError(f"`others` lacks {missing} for {kind}: got {sorted(section)}. Give an encoder and a shape.")
    if unknown := sorted(set(section) - OTHER_FIELDS):
        raise ValueError(f"`others` has unknown fields for {kind}: expected {sorted(OTHER_FIELDS)}, got {unknown}.")
    return section


def _other_media(kind: str, section: dict[str, Any], encoders: dict[str, Any], ids: dict[str, int]) -> dict[str, Any]:
    """One kind of `others` as `CompositeConfig` takes it."""
    fields = {field: value for field, value in section.items() if field in PART_FIELDS}
    return {"config": encoders[kind].config, "token_id": ids[f"{kind}_token_id"], **fields}


def _resolve(part: Any, source: Any, load: Callable[[str], Any], name: str) -> Any:
    """The given tokenizer or processor, loaded where it is a name, else the one that lies with its model."""
    if source is None:
        return None
    if part is None and not isinstance(source, str):
        raise ValueError(f"`{name}` is missing: a model was given rather than its name. Pass the `{name}` too.")
    return _load(name, source if part is None else part, load)


def _load(part: str, source: Any, load: Callable[..., Any], **kwargs: Any) -> Any:
    """An object as it is, or what lies under a name. Raises OSError or ValueError that names the part."""
    if not isinstance(source, str):
        return source
    try:
        return load(source, **kwargs)
    except (OSError, ValueError, KeyError) as error:
        kind = OSError if isinstance(error, OSError) else ValueError
        reason = str(error).strip().partition("\n")[0]
        raise kind(f"`{part}` cannot be loaded from {source}: {reason} Give a hub id or a folder of it.") from error


@torch.no_grad()
def _grow_embeddings(text_model: Any, vocab_size: int) -> None:
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
        return feature_extractor.max_length * 0.01  # its frames are 10 ms apart
    raise ValueError("`segment_seconds` is missing: this feature extractor has no length of its own. Give it.")
