"""The collator: which tokens carry loss, on which side rows are padded, what is said about bad samples."""

import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
import torch
from PIL import Image

from moka_peft.composite import CompositeProcessor, tiny_avt_processor
from moka_peft.data import AvDigits, Collator, Sample
from moka_peft.data.answers import mark_answers
from moka_peft.data.collator import IGNORED, bare_messages
from moka_peft.data.media import MediaOptions

PLAIN_TEMPLATE = (
    "{% for message in messages %}<|{{ message.role }}|>{{ message.content }}<|end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>{% endif %}"
)
BLOCK_TEMPLATE = """\
{% for message in messages %}
<|{{ message.role }}|>
    {% if message.role == 'assistant' %}
    {% generation %}
{{ message.content }}<|end|>
    {% endgeneration %}
    {% else %}
{{ message.content }}<|end|>
    {% endif %}
{% endfor %}
"""


@pytest.fixture(scope="module")
def processor() -> CompositeProcessor:
    return tiny_avt_processor()


@pytest.fixture(scope="module")
def samples() -> list[Sample]:
    return AvDigits("test", 6)[:]


def turns(*texts: str, media: list[dict[str, Any]] | None = None) -> Sample:
    """A conversation whose turns alternate, with media before the first text."""
    messages = [
        {"role": "assistant" if i % 2 else "user", "content": [{"type": "text", "text": text}]}
        for i, text in enumerate(texts)
    ]
    messages[0]["content"] = [*(media or []), *messages[0]["content"]]
    return Sample("turns", messages)


def image(shade: int = 0) -> dict[str, Any]:
    return {"type": "image", "image": Image.new("RGB", (128, 32), (shade, shade, shade))}


def supervised(processor: Any, batch: dict[str, torch.Tensor], row: int) -> str:
    labels = batch["labels"][row]
    return processor.tokenizer.decode(labels[labels != IGNORED])


def test_loss_falls_on_answers_alone(processor: CompositeProcessor, samples: list[Sample]):
    batch = Collator(processor)(samples)
    for row, sample in enumerate(samples):
        assert supervised(processor, batch, row) == f"{sample.answer}<|end|>"
    kept = batch["labels"] != IGNORED
    assert torch.equal(batch["labels"][kept], batch["input_ids"][kept])
    assert not (kept & (batch["attention_mask"] == 0)).any()


def test_every_assistant_turn_is_supervised(processor: CompositeProcessor):
    first, later = turns("yes?", "no", "and", "yes one", media=[image()]), turns("two", "three")
    batch = Collator(processor)([first, later])
    assert supervised(processor, batch, 0) == "no<|end|>yes one<|end|>"
    assert supervised(processor, batch, 1) == "three<|end|>"


def test_media_in_a_later_turn_leave_earlier_answers_in_place(processor: CompositeProcessor):
    sample = turns("one", "two", "three", "four", media=[image()])
    sample.messages[2]["content"] += [image(255), image(9)]
    batch = Collator(processor)([sample])
    assert supervised(processor, batch, 0) == "two<|end|>four<|end|>"
    assert batch["pixel_values"].shape[0] == 3


@pytest.mark.parametrize("template", [PLAIN_TEMPLATE, BLOCK_TEMPLATE], ids=["prefixes", "tags on own lines"])
def test_other_templates_give_the_same_answers(template: str):
    processor = tiny_avt_processor()
    processor.chat_template = template
    sample = turns("yes?", "no", "and", "yes one", media=[image()])
    (text,) = mark_answers(processor, [bare_messages(sample)], [[True, True]])
    assert re.sub("[\ufdd0\ufdd1]", "", text) == processor.apply_chat_template(bare_messages(sample), tokenize=False)
    assert [a.strip("\n") for a in re.findall("\ufdd0(.*?)\ufdd1", text, re.S)] == ["no<|end|>", "yes one<|end|>"]
    (later,) = mark_answers(processor, [bare_messages(sample)], [[False, True]])
    assert [a.strip("\n") for a in re.findall("\ufdd0(.*?)\ufdd1", later, re.S)] == ["yes one<|end|>"]


def test_padding_side(processor: CompositeProcessor, samples: list[Sample]):
    """Training rows end in padding, prompts begin with it; without padding each row is the row alone."""
    collator = Collator(processor)
    batch, prompts = collator(samples), collator.collate_prompts(samples)
    for row, sample in enumerate(samples):
        alone, prompt = collator([sample]), collator.collate_prompts([sample])
        length, prompt_length = alone["input_ids"].shape[1], prompt["input_ids"].shape[1]
        assert torch.equal(batch["input_ids"][row, :length], alone["input_ids"][0])
        assert batch["attention_mask"][row].tolist() == [1] * length + [0] * (batch["labels"].shape[1] - length)
        assert torch.equal(prompts["input_ids"][row, -prompt_length:], prompt["input_ids"][0])
        assert int(prompts["attention_mask"][row].sum()) == prompt_length
        assert torch.equal(alone["input_ids"][0, :prompt_length], prompt["input_ids"][0])
        assert processor.tokenizer.decode(alone["input_ids"][0, prompt_length:]) == f"{sample.answer}<|end|>"


def test_media_tensors_follow_the_samples(processor: CompositeProcessor, samples: list[Sample]):
    without_audio = replace(
        samples[1],
        messages=[
            {"role": "user", "content": [p for p in samples[1].messages[0]["content"] if p["type"] != "audio"]},
            samples[1].messages[1],
        ],
    )
    collator = Collator(processor)
    batch = collator([samples[0], without_audio, samples[2]])
    assert batch["pixel_values"].shape[0] == 3 and batch["input_features"].shape[0] == 2
    alone = collator([samples[2]])
    torch.testing.assert_close(batch["input_features"][1], alone["input_features"][0])
    torch.testing.assert_close(batch["pixel_values"][2], alone["pixel_values"][0])
    assert "input_features" not in collator([without_audio])


def test_files_give_the_tensors_of_their_contents(tmp_path: Path, processor: CompositeProcessor):
    sample = AvDigits("test", 1)[0]
    picture, clip = sample.media("image")[0]["image"], sample.media("audio")[0]["audio"]
    picture.save(tmp_path / "strip.png")
    soundfile.write(tmp_path / "notes.wav", clip, 16_000, subtype="FLOAT")
    parts = [
        {"type": "image", "image": tmp_path / "strip.png"},
        {"type": "audio", "audio": str(tmp_path / "notes.wav")},
    ]
    from_files = turns("?", "yes", media=parts)
    in_memory = turns("?", "yes", media=sample.messages[0]["content"][:2])
    first, second = Collator(processor)([from_files]), Collator(processor)([in_memory])
    assert first.keys() == second.keys()
    for name in first:
        torch.testing.assert_close(first[name], second[name])


def test_video_files_become_frames(processor: CompositeProcessor, fade: Callable[[list[int]], Path]):
    sample = turns("?", "yes", media=[{"type": "video", "video": str(fade([20, 100, 180]))}])
    batch = Collator(processor, media=MediaOptions(video_frames=3))([sample])
    shades = batch["pixel_values_videos"].mean(dim=(1, 2, 3))
    torch.testing.assert_close(shades, torch.tensor([20, 100, 180]) / 127.5 - 1, atol=0.05, rtol=0)
    assert supervised(processor, batch, 0) == "yes<|end|>"


def test_arrays_are_resampled(processor: CompositeProcessor):
    tone = np.sin(np.arange(16_000) / 5).astype(np.float32)
    parts = [
        {"type": "audio", "audio": audio, "sample_rate_hz": hz} for audio, hz in ((tone, 16_000), (tone[::2], 8_000))
    ]
    first, second = (Collator(processor)([turns("?", "yes", media=[p])])["input_features"] for p in parts)
    assert (first - second).abs().mean() < 0.1  # log-mel in units of 10 dB / 4


def test_tag_in_the_text_without_a_medium_is_named(processor: CompositeProcessor):
    sample = turns("<image> What is it?", "yes", media=[image()])
    with pytest.raises(ValueError, match=r"sample `turns`: 2 `<image>` in the text, 1 image attached. Write one"):
        Collator(processor)([sample])
    with pytest.raises(ValueError, match=r"sample `turns`: 1 `<audio>` in the text, 0 audio attached"):
        Collator(processor).collate_prompts([turns("<audio>?", "yes")])


def test_audio_array_without_a_rate_is_refused(processor: CompositeProcessor):
    part = {"type": "audio", "audio": np.zeros(16_000, dtype=np.float32)}
    with pytest.raises(ValueError, match="audio array has no `sample_rate_hz`"):
        Collator(processor)([turns("?", "yes", media=[part])])


def test_medium_that_the_processor_does_not_take_is_named(processor: CompositeProcessor):
    """AddsTokens declares images only: audio must not be dropped silently."""
    part = {"type": "audio", "audio": np.zeros(16_000, dtype=np.float32), "sample_rate_hz": 16_000}
    with pytest.raises(ValueError, match="sample `turns`: 1 audio attached, but the processor takes image"):
        Collator(AddsTokens(processor))([turns("?", "yes", media=[part])])


def test_sample_without_an_answer_is_named(processor: CompositeProcessor):
    collator = Collator(processor)
    for collate in (collator, collator.collate_prompts):
        with pytest.raises(ValueError, match="ends with user: expected the assistant's answer as its last message"):
            collate([turns("How many?")])


def test_template_that_changes_earlier_turns_is_named():
    processor = tiny_avt_processor()
    processor.chat_template = "{{ messages | length }}" + PLAIN_TEMPLATE
    with pytest.raises(ValueError, match="`chat_template` renders a turn differently when more follows"):
        Collator(processor)([turns("one", "two", "three", "four")])


def test_template_that_marks_too_few_answers_is_named():
    processor = tiny_avt_processor()
    processor.chat_template = BLOCK_TEMPLATE.replace("== 'assistant'", "== 'assistant' and loop.last")
    with pytest.raises(ValueError, match="`chat_template` marks 1 answers: expected 2"):
        Collator(processor)([turns("one", "two", "three", "four")])


class AddsTokens:
    """A processor of images alone that writes more than placeholders where one stands."""

    def __init__(self, inner: CompositeProcessor):
        self.inner, self.tokenizer, self.chat_template = inner, inner.tokenizer, inner.chat_template
        self.image_token, self.apply_chat_template = inner.image_token, inner.apply_chat_template

    def __call__(self, text: list[str], **inputs: Any) -> Any:
        return self.inner(text=[row.replace("<image>", "[<image>]") for row in text], **inputs)


def test_processor_that_adds_other_tokens_is_named(processor: CompositeProcessor):
    with pytest.raises(ValueError, match="AddsTokens returns other tokens than its tokenizer made of its text"):
        Collator(AddsTokens(processor))([turns("one", "two", media=[image()])])


REFUSING_TEMPLATE = (
    "{% if messages[0].role == 'system' %}{{ raise_exception('System role not supported') }}{% endif %}"
    + PLAIN_TEMPLATE
)


@pytest.mark.parametrize("call", ["__call__", "collate_prompts"])
@pytest.mark.parametrize("where", ["rows.jsonl, row 2", ""])
def test_a_conversation_that_the_template_refuses_is_named(processor, call: str, where: str):
    refusing = CompositeProcessor(tokenizer=processor.tokenizer, chat_template=REFUSING_TEMPLATE)
    turns = [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Ho"}]
    samples = [Sample("a", turns), Sample("b", [{"role": "system", "content": "Be."}, *turns], where=where)]
    named = f"{where}, `messages`" if where else "sample `b`"
    with pytest.raises(ValueError, match=f"^{named}: `chat_template` refuses the conversation: System role not supp"):
        getattr(Collator(refusing), call)(samples)
