"""A tiny LLaVA with its real processor, and questions about the brightness of images that it can memorise."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from datasets import Dataset
from PIL import Image
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import (
    CLIPImageProcessor,
    CLIPVisionConfig,
    LlamaConfig,
    LlavaConfig,
    LlavaForConditionalGeneration,
    LlavaProcessor,
    PreTrainedTokenizerFast,
)

from moka_peft import MokaConfig

# What stands between the generation tags is the answer, its end-of-turn token included.
TEMPLATE = """
{%- for message in messages %}
  {{- '<|im_start|>' + message.role + '\\n' }}
  {%- if message.role == 'assistant' %}
    {%- generation %}
      {%- for part in message.content if part.type == 'text' %}{{- part.text }}{%- endfor %}
      {{- '<|im_end|>' }}
    {%- endgeneration %}
  {%- else %}
    {%- for part in message.content %}{{- '<image>' if part.type == 'image' else part.text }}{%- endfor %}
    {{- '<|im_end|>' }}
  {%- endif %}
  {{- '\\n' }}
{%- endfor %}
{%- if add_generation_prompt %}{{- '<|im_start|>assistant\\n' }}{%- endif %}
"""
SPECIAL = ["<pad>", "<|im_start|>", "<|im_end|>", "<image>"]
QUESTION, ANSWERS = "How bright is it?", ("black", "grey", "white")
IMAGE_SIDE, PATCH = 8, 4
IMAGE_TOKENS = (IMAGE_SIDE // PATCH) ** 2


def tiny_tokenizer() -> PreTrainedTokenizerFast:
    """Byte-level BPE; the questions and answers are single words of it."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=340,
        special_tokens=SPECIAL,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator([" ".join([QUESTION, *ANSWERS, "user assistant"])] * 4, trainer)
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, pad_token="<pad>", eos_token="<|im_end|>")


@pytest.fixture(scope="session")
def processor() -> LlavaProcessor:
    images = CLIPImageProcessor(
        size={"shortest_edge": IMAGE_SIDE}, crop_size={"height": IMAGE_SIDE, "width": IMAGE_SIDE}
    )
    return LlavaProcessor(
        image_processor=images,
        tokenizer=tiny_tokenizer(),
        patch_size=PATCH,
        vision_feature_select_strategy="full",
        num_additional_image_tokens=0,
        chat_template=TEMPLATE,
    )


def build_llava(processor: LlavaProcessor) -> LlavaForConditionalGeneration:
    torch.manual_seed(0)
    small = dict(hidden_size=32, intermediate_size=48, num_hidden_layers=2, num_attention_heads=4)
    tokenizer = processor.tokenizer
    config = LlavaConfig(
        vision_config=CLIPVisionConfig(**small, image_size=IMAGE_SIDE, patch_size=PATCH),
        text_config=LlamaConfig(
            **small,
            vocab_size=len(tokenizer),
            pad_token_id=tokenizer.pad_token_id,
            bos_token_id=None,
            eos_token_id=tokenizer.eos_token_id,
        ),
        image_token_id=processor.image_token_id,
        vision_feature_select_strategy="default",
        vision_feature_layer=-1,
        pad_token_id=tokenizer.pad_token_id,
    )
    model = LlavaForConditionalGeneration(config).eval()
    with torch.no_grad():
        for weight in (weight for weight in model.parameters() if weight.ndim > 1):
            weight.mul_(8)  # transformers starts so small that an adapter on the layers could not change the answer
    return model


@pytest.fixture(scope="session")
def folder(processor, tmp_path_factory) -> Path:
    """Model and processor on disk, as from_pretrained reads them."""
    path = tmp_path_factory.mktemp("llava")
    build_llava(processor).save_pretrained(path)
    processor.save_pretrained(path)
    return path


@pytest.fixture
def llava(folder):
    """llava() -> a two-layer LLaVA of 32 dimensions, always with the same weights."""
    return lambda: LlavaForConditionalGeneration.from_pretrained(folder).eval()


@pytest.fixture
def moka():
    """moka(**overrides) -> a MokaConfig without a spec of its own: the processor's is derived where not given."""
    return lambda **overrides: MokaConfig(**{"r": 4, "lora_alpha": 16, **overrides})


def labels_after_question(inputs) -> torch.Tensor:
    """[B, S]: -100 up to the question's end and at padding, so that loss is on what the assistant's turn says."""
    asked = (inputs["input_ids"] == SPECIAL.index("<|im_end|>")).int().cumsum(1) == 0
    return inputs["input_ids"].masked_fill(asked | (inputs["attention_mask"] == 0), -100)


def grey(level: int) -> Image.Image:
    return Image.new("RGB", (IMAGE_SIDE, IMAGE_SIDE), (level,) * 3)


def messages(answer: str) -> list[dict]:
    return [{"role": "user", "content": QUESTION}, {"role": "assistant", "content": answer}]


@pytest.fixture
def chats() -> Dataset:
    """`images` + `messages`, as TRL takes them."""
    return Dataset.from_list(
        [{"images": [grey(120 * index)], "messages": messages(answer)} for index, answer in enumerate(ANSWERS)] * 4
    )


@pytest.fixture
def batch(processor):
    """batch("black", None) -> inputs of one chat per answer; None: a chat without an image."""

    def build(*answers, padding_side="right"):
        rows = []
        for index, answer in enumerate(answers):
            parts = [{"type": "text", "text": QUESTION}]
            if answer is not None:
                parts.insert(0, {"type": "image", "image": grey(60 * index)})
            said = [{"type": "text", "text": answer or "no image"}]
            rows.append([{"role": "user", "content": parts}, {"role": "assistant", "content": said}])
        return processor.apply_chat_template(
            rows,
            tokenize=True,
            return_dict=True,
            return_tensors="pt",
            processor_kwargs={"padding": True, "padding_side": padding_side},
        )

    return build
