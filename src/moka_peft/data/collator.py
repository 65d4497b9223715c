"""Turns samples into the tensors a model reads: training rows with labels, or prompts to generate from."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch

from moka_peft.data.answers import Conversation, mark_answers, render
from moka_peft.data.media import MediaOptions, load_media
from moka_peft.data.samples import MEDIA, Sample, check_lengths, check_placeholders, parts_of

IGNORED = -100  # the label that cross-entropy skips


class Collator:
    """Calls a multimodal processor on samples; loss falls on the assistant's answers only.

    processor: anything with a tokenizer, a chat template, and `text`, `images`, `videos`, `audios` keywords.
    media: how files are decoded. max_length: the most tokens of a sample, media included; None is no limit.
    """

    def __init__(self, processor: Any, *, media: MediaOptions = MediaOptions(), max_length: int | None = None):  # noqa: B008
        self.processor = processor
        self.media, self.max_length = media, max_length
        self.placeholders = _placeholders(processor)
        tokenizer = processor.tokenizer
        self._media_ids = np.array([tokenizer.convert_tokens_to_ids(t) for t in self.placeholders.values()])

    def __call__(self, samples: Sequence[Sample]) -> dict[str, torch.Tensor]:
        """A training batch, padded on the right: input_ids, attention_mask, labels [B, S] and media tensors."""
        for sample in samples:
            _check_answered(sample)
        texts, ids, masks = mark_answers(self.processor, [bare_messages(sample) for sample in samples])
        batch = self._process(samples, texts, padding_side="right")
        check_lengths(samples, batch["attention_mask"].sum(-1).tolist(), self.max_length)
        batch["labels"] = self._labels(samples, batch, ids, masks)
        return batch

    def collate_prompts(self, samples: Sequence[Sample]) -> dict[str, torch.Tensor]:
        """A batch to generate from, padded on the left: everything before the last answer, ready for it."""
        for sample in samples:
            _check_answered(sample)
        conversations = [bare_messages(sample)[:-1] for sample in samples]
        texts = render(self.processor, conversations, add_generation_prompt=True)
        return self._process(samples, texts, padding_side="left")

    def _process(self, samples: Sequence[Sample], texts: list[str], padding_side: str) -> dict[str, torch.Tensor]:
        for sample, text in zip(samples, texts, strict=True):
            check_placeholders(sample, text, self.placeholders)
        rate_hz = getattr(getattr(self.processor, "feature_extractor", None), "sampling_rate", None)
        media = {
            f"{type}s": loaded
            for type in MEDIA
            if (loaded := [m for sample in samples for m in load_media(sample, type, self.media, rate_hz)])
        }
        return dict(
            self.processor(
                text=texts,
                **media,
                padding=True,
                padding_side=padding_side,
                add_special_tokens=False,
                return_tensors="pt",
            )
        )

    def _labels(
        self,
        samples: Sequence[Sample],
        batch: dict[str, torch.Tensor],
        ids: list[np.ndarray],
        masks: list[np.ndarray],
    ) -> torch.Tensor:
        """The answers' ids, elsewhere IGNORED [B, S]. Media tokens aside, the rows equal the unexpanded `ids`,
        which is what carries each answer mask over. Raises ValueError where a processor adds other tokens."""
        rows, attended = batch["input_ids"].numpy(), batch["attention_mask"].numpy().astype(bool)
        is_text = attended & ~np.isin(rows, self._media_ids)
        labels = np.full(rows.shape, IGNORED)
        for i, (row_ids, mask) in enumerate(zip(ids, masks, strict=True)):
            is_text_id = ~np.isin(row_ids, self._media_ids)
            if not np.array_equal(rows[i, is_text[i]], row_ids[is_text_id]):
                raise ValueError(
                    f"{samples[i].place}: {type(self.processor).__name__} changes text tokens when it "
                    "expands media, so answers cannot be located. Use a processor that only repeats placeholders."
                )
            positions = np.flatnonzero(is_text[i])[mask[is_text_id]]
            labels[i, positions] = rows[i, positions]
        return torch.from_numpy(labels)


def bare_messages(sample: Sample) -> Conversation:
    """A sample's messages as a chat template wants them: content as parts, media by type alone."""
    return [
        {
            "role": message["role"],
            "content": [part if part["type"] == "text" else {"type": part["type"]} for part in parts_of(message)],
        }
        for message in sample.messages
    ]


def _check_answered(sample: Sample) -> None:
    last = sample.messages[-1]["role"] if sample.messages else "nothing"
    if last != "assistant":
        raise ValueError(
            f"{sample.place} ends with {last}: expected the assistant's answer as its last message. Add it."
        )


def _placeholders(processor: Any) -> dict[str, str]:
    """{"image": "<image>", ...} for the media types that the processor knows."""
    found = {type: getattr(processor, f"{type}_token", None) for type in MEDIA}
    return {type: token for type, token in found.items() if token}
