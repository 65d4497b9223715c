"""Turns samples into the tensors a model reads: training rows with labels, or prompts to generate from."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from PIL import Image

from moka_peft.data.answers import Conversation, mark_answers, render
from moka_peft.data.marked_tokenizer import MarkedTokenizer
from moka_peft.data.media import MediaOptions, load_media
from moka_peft.data.media.options import DEFAULTS
from moka_peft.data.media.segments import spread_segments
from moka_peft.data.naming import naming_samples
from moka_peft.data.packing import Packing
from moka_peft.data.processor_inputs import (
    audio_part_of,
    check_media,
    media_keywords,
    placeholders_of,
    refuse_unsupported,
    segment_seconds_of,
)
from moka_peft.data.samples import MEDIA, Sample, check_lengths, check_placeholders, parts_of
from moka_peft.data.suffixes import suffix_texts, takes_suffix

IGNORED = -100  # the label that cross-entropy skips


class Collator:
    """Calls a multimodal processor on samples; loss falls on the assistant's answers only, except on messages with
    `"loss": False`.

    processor: anything with a tokenizer, a chat template, and `text`, `images`, `videos`, `audio` keywords.
    media: how files are decoded. packing: puts several samples into one row, see `Packing`, which
    also says what `model_config`, needed for it, is. max_length: the longest sample, in tokens, and the capacity of
    a packed row. kinds: media ("image", ...) of which every batch holds at least a blank one, without loss, so that
    all processes of a run use the same encoders.
    """

    def __init__(
        self,
        processor: Any,
        *,
        media: MediaOptions = DEFAULTS,
        packing: bool = False,
        max_length: int | None = None,
        kinds: Sequence[str] = (),
        model_config: Any = None,
    ):
        self.processor = processor
        self.media = media
        self.placeholders = placeholders_of(processor)
        self.max_length = max_length
        self.kinds = tuple(kinds)
        if unknown := [kind for kind in kinds if kind not in self.placeholders]:
            raise ValueError(f"`kinds`: expected some of {', '.join(self.placeholders)}, got {', '.join(unknown)}.")
        self.segment_seconds = segment_seconds_of(processor, media.audio_segments)
        self.packing = Packing.of(processor, model_config, max_length) if packing else None

    def __call__(self, samples: Sequence[Sample]) -> dict[str, Any]:
        """A training batch: input_ids, labels [B, S] and media tensors, with attention_mask, padded on the right; or,
        packed, with position_ids."""
        samples = self._with_blanks(samples)
        if self.packing is None:
            return naming_samples(self._train, samples)
        return self.packing.pack([naming_samples(self._train, [sample]) for sample in samples])

    def collate_prompts(self, samples: Sequence[Sample]) -> dict[str, torch.Tensor]:
        """A batch to generate from, padded on the left: everything before the last answer, ready for it. Rows of blank
        media come last."""
        return naming_samples(self._prompts, self._with_blanks(samples))

    def _prompts(self, samples: Sequence[Sample]) -> dict[str, torch.Tensor]:
        self._check(samples)
        if takes_suffix(self.processor):
            texts, _ = suffix_texts(samples, self.placeholders["image"])
        else:
            conversations = [bare_messages(sample)[:-1] for sample in samples]
            texts = render(self.processor, conversations, add_generation_prompt=True)
        batch = self._process(self.processor, samples, texts, padding_side="left")
        batch.pop("labels", None)
        return batch

    def _with_blanks(self, samples: Sequence[Sample]) -> list[Sample]:
        """The samples, and a blank one for each of `kinds` that they lack."""
        held = {kind for sample in samples for kind in MEDIA if sample.media(kind)}
        return [*samples, *(self.blank(kind) for kind in self.kinds if kind not in held)]

    def count_tokens(self, samples: Sequence[Sample]) -> list[int]:
        """The length of each sample in tokens, media expanded; one at a time, so that memory stays small."""
        return [self._train([sample], limited=False)["input_ids"].shape[1] for sample in samples]

    def _train(self, samples: Sequence[Sample], limited: bool = True) -> dict[str, torch.Tensor]:
        self._check(samples)
        if takes_suffix(self.processor):
            texts, suffixes = suffix_texts(samples, self.placeholders["image"])
            batch = self._process(self.processor, samples, texts, padding_side="right", suffix=suffixes)
            learnt = batch["labels"] != IGNORED
            learnt &= torch.tensor([_carry_loss(sample) for sample in samples])
        else:
            conversations = [bare_messages(sample) for sample in samples]
            texts = mark_answers(self.processor, conversations, [_carry_loss(sample) for sample in samples])
            processor, marked = MarkedTokenizer.inside(self.processor)
            batch = self._process(processor, samples, texts, padding_side="right")
            masks = marked.masks_for(batch["input_ids"], type(self.processor).__name__)
            learnt = torch.from_numpy(np.stack(masks)) & batch["attention_mask"].bool()
        if limited:
            check_lengths(samples, batch["attention_mask"].sum(1).tolist(), self.max_length)
        return {**batch, "labels": torch.where(learnt, batch["input_ids"], IGNORED)}

    def _process(
        self, processor: Any, samples: Sequence[Sample], texts: list[str], padding_side: str, **options: Any
    ) -> dict[str, torch.Tensor]:
        """What `processor` makes of the rows. Raises ValueError where media and text do not fit, or media get lost."""
        for sample, text in zip(samples, texts, strict=True):
            check_placeholders(sample, text, self.placeholders)
        rate_hz = getattr(audio_part_of(processor), "sampling_rate", None)
        media = [{type: self._load(sample, type, rate_hz) for type in MEDIA} for sample in samples]
        batch = dict(
            processor(
                text=texts,
                **media_keywords(processor, media),
                **options,
                padding=True,
                padding_side=padding_side,
                add_special_tokens=False,
                return_tensors="pt",
            )
        )
        check_media(processor, samples, batch)
        return batch

    def _load(self, sample: Sample, type: str, rate_hz: int | None) -> list[Any]:
        """A sample's media of one type; recordings as the pieces that `audio_segments` asks for."""
        loaded, count = load_media(sample, type, self.media, rate_hz), self.media.audio_segments
        if type != "audio" or count is None or self.segment_seconds is None or rate_hz is None:
            return loaded
        return [spread_segments(waveform, count, self.segment_seconds, rate_hz) for waveform in loaded]

    def _check(self, samples: Sequence[Sample]) -> None:
        for sample in samples:
            _check_answered(sample)
        refuse_unsupported(self.processor, samples)

    def blank(self, kind: str) -> Sample:
        """A sample without loss that holds one blank medium."""
        part: dict[str, Any] = {"type": kind, kind: Image.new("RGB", (64, 64))}
        if kind == "video":
            part[kind] = np.zeros((4, 64, 64, 3), dtype=np.uint8)
        if kind == "audio":
            rate_hz = audio_part_of(self.processor).sampling_rate
            part |= {kind: np.zeros(rate_hz, dtype=np.float32), "sample_rate_hz": rate_hz}
        asked = {"role": "user", "content": [part, {"type": "text", "text": "?"}]}
        return Sample(f"blank {kind}", [asked, {"role": "assistant", "content": ".", "loss": False}])


def bare_messages(sample: Sample) -> Conversation:
    """A sample's messages as a chat template wants them: content as parts, media by type alone."""
    return [
        {
            "role": message["role"],
            "content": [part if part["type"] == "text" else {"type": part["type"]} for part in parts_of(message)],
        }
        for message in sample.messages
    ]


def _carry_loss(sample: Sample) -> list[bool]:
    """Whether each assistant message carries loss."""
    return [message.get("loss", True) for message in sample.messages if message["role"] == "assistant"]


def _check_answered(sample: Sample) -> None:
    last = sample.messages[-1]["role"] if sample.messages else "nothing"
    if last != "assistant":
        raise ValueError(
            f"sample `{sample.id}` ends with {last}: expected the assistant's answer as its last message. Add it."
        )
