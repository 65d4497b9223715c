"""What processors take: the names of their keywords, how media are nested, and whether all media reached the batch."""

from __future__ import annotations

import inspect
from collections.abc import Mapping, Sequence
from typing import Any

import torch

from moka_peft.data.media.timed_frames import video_keywords
from moka_peft.data.samples import MEDIA, Sample

# These want one list of images per row; the others deal a flat list by their placeholders.
NESTED = ("Gemma3Processor", "Gemma3nProcessor", "Gemma4Processor", "Gemma4UnifiedProcessor", "Lfm2VlProcessor")
NESTED += ("MllamaProcessor", "SmolVLMProcessor")
REFUSED = {  # class name -> why its batches cannot be made
    "VoxtralProcessor": "it takes audio through the chat template of mistral-common alone, which gives no text",
}
TENSORS = {  # kind of media -> names under which processors return it
    "image": ("pixel_values", "image_pixel_values", "pixel_values_images"),
    "video": ("pixel_values_videos", "video_grid_thw", "pixel_values"),
    "audio": ("input_features", "audio_input_features", "input_values"),
}
ONE_ROW_PER_MEDIUM = {"image_grid_thw": "image", "video_grid_thw": "video", "feature_attention_mask": "audio"}


def parameters_of(processor: Any) -> Mapping[str, inspect.Parameter]:
    """The parameters of the processor's call."""
    return inspect.signature(type(processor).__call__).parameters


def placeholders_of(processor: Any) -> dict[str, str]:
    """{"image": "<image>", ...}: what stands in a rendered chat for each medium that the processor knows."""
    found = {kind: getattr(processor, f"{kind}_token", None) for kind in MEDIA}
    return {kind: token for kind, token in found.items() if token}


def media_ids_of(processor: Any) -> list[int]:
    """Every token id that stands for media in `input_ids`."""
    tokenizer = processor.tokenizer
    ids = {tokenizer.convert_tokens_to_ids(token) for token in placeholders_of(processor).values()}
    for owner in (processor, tokenizer):
        for kind in MEDIA:
            ids |= {getattr(owner, f"{kind}_token_id", None), *(getattr(owner, f"{kind}_token_ids", None) or ())}
    return sorted(ids - {None, tokenizer.unk_token_id})  # what a tokenizer does not know it takes for any unknown token


def audio_part_of(processor: Any) -> Any:
    """The part that turns waveforms into features; None where there is none."""
    return getattr(processor, "feature_extractor", None) or getattr(processor, "audio_processor", None)


def segment_seconds_of(processor: Any, segments: int | None) -> float | None:
    """The length of the pieces in which a processor takes recordings, where `segments` of them are asked for.

    Raises ValueError for a processor that takes recordings whole.
    """
    if segments is None:
        return None
    seconds = getattr(processor, "segment_seconds", None)
    if not seconds:
        raise ValueError(
            f"`audio_segments` is {segments}, but {type(processor).__name__} takes recordings whole: expected a "
            "processor with `segment_seconds`, as a composite with `audio` has. Remove `data.media.audio_segments`."
        )
    return seconds


def refuse_unsupported(processor: Any, samples: Sequence[Sample]) -> None:
    """Raises ValueError, with the reason, where this processor cannot make a batch of these samples' media."""
    name = type(processor).__name__
    for sample in samples:
        known = next((cls.__name__ for cls in type(processor).__mro__ if cls.__name__ in REFUSED), "")
        reason = REFUSED.get(known) if any(sample.media(kind) for kind in MEDIA) else None
        if sample.media("video") and getattr(processor, "video_processor", ...) is None:
            reason = "it was loaded without its video processor, which needs torchvision. Install torchvision"
        if reason:
            raise ValueError(f"sample `{sample.id}`: {name} cannot read its media: {reason}. Or remove the sample.")


def media_keywords(processor: Any, rows: Sequence[Mapping[str, list[Any]]]) -> dict[str, Any]:
    """The keywords of the processor's call for the loaded media of each row, {"image": [...], ...}."""
    flat = {kind: [medium for row in rows for medium in row.get(kind, ())] for kind in MEDIA}
    keywords: dict[str, Any] = {}
    if flat["image"]:
        nested = any(cls.__name__ in NESTED for cls in type(processor).__mro__)
        keywords["images"] = [row.get("image", []) for row in rows] if nested else flat["image"]
    if flat["video"]:
        keywords |= video_keywords(processor, flat["video"])
    if flat["audio"]:
        keywords[_audio_keyword(processor)] = flat["audio"]
        rate_hz = audio_part_of(processor).sampling_rate
        takes_rate = "sampling_rate" in parameters_of(processor)
        keywords |= {"sampling_rate": rate_hz} if takes_rate else {"audio_kwargs": {"sampling_rate": rate_hz}}
    return keywords


def _audio_keyword(processor: Any) -> str:
    for name in ("audio", "audios"):
        if name in parameters_of(processor):
            return name
    raise ValueError(
        f"{type(processor).__name__} takes no audio: neither `audio` nor `audios` is among its keywords. Use a model "
        "that takes audio, or remove these samples."
    )


def check_media(processor: Any, samples: Sequence[Sample], batch: Mapping[str, Any]) -> None:
    """Raises ValueError where a medium did not reach the batch, or its tokens and tensors differ in number."""
    name, total = type(processor).__name__, {k: sum(len(s.media(k)) for s in samples) for k in MEDIA}
    for kind, names in TENSORS.items():
        if total[kind] and not any(key in batch for key in names):
            raise ValueError(
                f"{name} dropped {total[kind]} {kind} without a word: expected one of {', '.join(names)} in its batch, "
                f"got {', '.join(batch)}. Use a processor that takes {kind}, or remove these samples."
            )
    for key, kind in ONE_ROW_PER_MEDIUM.items():
        if key in batch and len(batch[key]) != total[kind]:
            raise ValueError(f"{name} returns `{key}` for {len(batch[key])} {kind}: expected {total[kind]}.")
    is_media = torch.isin(torch.as_tensor(batch["input_ids"]), torch.tensor(media_ids_of(processor)))
    for sample, tokens in zip(samples, is_media.sum(1).tolist(), strict=True):
        attached = sum(len(sample.media(kind)) for kind in MEDIA)
        if tokens < attached or (tokens and not attached):
            raise ValueError(
                f"sample `{sample.id}`: {tokens} media tokens in its row for {attached} media. {name} neither "
                "repeats the placeholder nor keeps it; check its chat template and tokenizer."
            )
    _check_grids(processor, batch, is_media)


def _check_grids(processor: Any, batch: Mapping[str, Any], is_media: torch.Tensor) -> None:
    """Patches of Qwen-VL's kind become `merge_size` x `merge_size` to a token."""
    grids = [batch[f"{kind}_grid_thw"] for kind in ("image", "video") if f"{kind}_grid_thw" in batch]
    merge = getattr(getattr(processor, "image_processor", None), "merge_size", None)
    if not grids or not merge or "input_features" in batch:
        return
    patches = sum(int(torch.as_tensor(grid).prod(-1).sum()) for grid in grids)
    if patches != int(is_media.sum()) * merge**2:
        raise ValueError(
            f"{type(processor).__name__} returns {patches} patches for {int(is_media.sum())} media tokens: expected "
            f"{merge**2} for each. Neither truncate nor split what it returns."
        )
