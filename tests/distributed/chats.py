"""Tiny models with a chat for each medium they take, by the name of the family."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import torch
from torch import Tensor
from transformers import PreTrainedModel

from moka_peft import RoutingSpec
from moka_peft.composite import CompositeForConditionalGeneration, tiny_avt_config, tiny_avt_processor
from moka_peft.data import Collator, Sample, load_samples

from ..families import zoo_audio, zoo_llava, zoo_qwen
from ..families.layout import END, Family
from ..families.weights import enliven

FAMILIES: dict[str, Family] = {
    "qwen2_5_vl": zoo_qwen.QWEN2_5_VL,
    "llava": zoo_llava.LLAVA,
    "qwen2_audio": zoo_audio.QWEN2_AUDIO,
}
PROJECTORS = {
    "qwen2_5_vl": ["visual.merger"],
    "llava": ["multi_modal_projector"],
    "qwen2_audio": ["multi_modal_projector"],
    "composite": ["vision_projector", "audio_projector"],
}
MEDIUM = {"qwen2_5_vl": "i", "llava": "i", "qwen2_audio": "a"}
SAMPLES = 24


@dataclass(frozen=True)
class Row:
    """A chat as a layout, and the seed of its media."""

    layout: str
    seed: int


def build_base(family: str) -> PreTrainedModel:
    """The family's model with random weights large enough that media matter."""
    if family != "composite":
        return FAMILIES[family].build()
    torch.manual_seed(0)
    model = CompositeForConditionalGeneration(tiny_avt_config()).eval()
    enliven(model)
    return model


def spec_for(family: str) -> RoutingSpec:
    if family == "composite":
        return RoutingSpec.from_pretrained(build_base(family).config, tiny_avt_processor())
    return FAMILIES[family].spec


def chats_for(family: str) -> list[Any]:
    """One medium (an image and a sound for the composite) in each, answers of 1 to 7 words or tokens."""
    if family == "composite":
        samples = load_samples({"name": "av_digits", "split": "train", "size": SAMPLES})
        return [longer(samples[index], 1 + (3 * index) % 7) for index in range(SAMPLES)]
    letters, rows = "bcdefghjklmnop", []
    for index in range(SAMPLES):
        answer = letters[(5 * index) % 14] * (1 + (3 * index) % 7)
        rows.append(Row(f"x{MEDIUM[family]}{letters[index % 14]}{letters[(3 * index) % 14]}|{answer}", index))
    return rows


def longer(sample: Sample, times: int) -> Sample:
    """The sample with its answer said several times."""
    *asked, answer = sample.messages
    return replace(sample, messages=[*asked, {**answer, "content": " ".join([sample.answer] * times)}])


def without_media(rows: Sequence[Row]) -> list[Row]:
    """Text alone in every second pair, which is what the second of two processes reads, and in the last four rows."""
    bare = str.maketrans("", "", "ia")
    is_bare = [index % 4 > 1 or index >= len(rows) - 4 for index in range(len(rows))]
    return [
        Row(row.layout.translate(bare), 0) if bare_one else row for row, bare_one in zip(rows, is_bare, strict=True)
    ]


def collator_for(family: str, blank: bool) -> Callable[[Sequence[Any]], dict[str, Tensor]]:
    """`blank`: a batch without media gets a row with one and without loss."""
    if family == "composite":
        return Collator(tiny_avt_processor())
    return partial(collate, FAMILIES[family], f"x{MEDIUM[family]}b|c" if blank else "")


def collate(family: Family, blank: str, rows: Sequence[Row]) -> dict[str, Tensor]:
    """Inputs, and labels on what follows the last user turn."""
    is_bare = not any(letter in row.layout for row in rows for letter in family.media)
    rows = [*rows, Row(blank, 0)] if blank and is_bare else list(rows)
    media = [family.row_media(row.layout, row.seed) for row in rows]
    inputs = family.inputs([row.layout for row in rows])
    inputs |= family.collate(media) if any(media) else {}
    ids = inputs["input_ids"]
    is_asked = (ids == END).flip(1).cumsum(1).flip(1) > 0
    labels = ids.masked_fill(is_asked | (inputs["attention_mask"] == 0), -100)
    if blank and is_bare:
        labels[-1] = -100
    return {**inputs, "labels": labels}
