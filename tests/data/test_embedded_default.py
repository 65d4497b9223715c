"""What the shipped tiny-avt knows of av_digits before any adapter."""

import pytest
import torch

from moka_peft.composite import load_tiny_avt
from moka_peft.composite.tiny_avt import FOLDER
from moka_peft.data import AvDigits, Collator

QUESTIONS = 40


@torch.no_grad()
def share_right(group: str) -> float:
    model, processor = load_tiny_avt()
    samples, collator = AvDigits("test", QUESTIONS, seed=1, groups=[group])[:], Collator(processor)
    prompts = collator.collate_prompts(samples)
    written = model.eval().generate(**prompts, max_new_tokens=4, do_sample=False)[:, prompts["input_ids"].shape[1] :]
    texts = processor.tokenizer.batch_decode(written, skip_special_tokens=True)
    return sum(text == sample.answer for text, sample in zip(texts, samples, strict=True)) / QUESTIONS


def test_weights_are_small_enough_to_ship():
    assert (FOLDER / "model.safetensors").stat().st_size <= 4_000_000


@pytest.mark.parametrize("group", ["Audio", "Visual"])
def test_it_answers_about_one_medium(group: str):
    assert share_right(group) > 0.7


def test_questions_about_both_media_are_left_to_an_adapter():
    assert share_right("Audio-Visual") < 0.4
