"""Language models of other families as the backbone, and the one inside a Qwen2.5-VL."""

import gc
import json

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import (
    LlamaConfig,
    MistralConfig,
    Qwen2_5_VLConfig,
    Qwen2_5_VLForConditionalGeneration,
    Qwen2Config,
    Qwen2ForCausalLM,
)

from moka_peft.composite import CompositeForConditionalGeneration, build_composite
from moka_peft.composite.encoders import build_encoder
from moka_peft.composite.text_models import load_text_model
from moka_peft.composite.tiny_avt import tiny_avt_processor, tiny_avt_tokenizer
from moka_peft.routing import RoutingSpec

from .conftest import IMAGE_ID, LAYERS, VISION, composite_config

ROPE = {"rope_type": "default", "rope_theta": 5_000.0, "mrope_section": [1, 1, 2]}
TEXT = {**LAYERS, "num_key_value_heads": 1, "vocab_size": 50, "pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2}
TOWER = {"depth": 1, "hidden_size": 16, "intermediate_size": 16, "num_heads": 2, "out_hidden_size": 16, "patch_size": 4}
TEMPLATE = (
    "{% for m in messages %}<|{{ m.role }}|>{% if m.content is string %}{{ m.content }}{% else %}"
    "{% for p in m.content %}{% if p.type == 'image' %}<|vision_start|><|image_pad|><|vision_end|>"
    "{% elif p.type == 'text' %}{{ p.text }}{% endif %}{% endfor %}{% endif %}<|end|>{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>{% endif %}"
)
"""Writes media parts as Qwen2.5-VL's template does."""


def qwen_vl(tied: bool = False, vocab_size: int = 50) -> Qwen2_5_VLForConditionalGeneration:
    """With no weight at its first value, so that a lost one shows."""
    torch.manual_seed(0)
    text = {**TEXT, "vocab_size": vocab_size, "rope_parameters": ROPE}
    model = Qwen2_5_VLForConditionalGeneration(
        Qwen2_5_VLConfig(text_config=text, vision_config=TOWER, tie_word_embeddings=tied)
    )
    with torch.no_grad():
        for weight in model.parameters():
            weight.normal_(std=0.3)
    return model.double().eval()


@pytest.mark.parametrize("tied", [False, True])
@pytest.mark.parametrize("form", ["now", "hub", "inner names"])
def test_the_language_model_of_a_qwen2_5_vl_says_the_same(tmp_path, tied, form):
    source = qwen_vl(tied)
    source.save_pretrained(tmp_path)
    if form == "inner names":  # as transformers 4.52 to 4.57 may write them
        file = tmp_path / "model.safetensors"
        renamed = {_inner(name): weight for name, weight in load_file(file).items()}
        save_file(renamed, file, {"format": "pt"})
    if form == "hub":
        (tmp_path / "config.json").write_text(json.dumps(_as_on_the_hub(source.config)))
    model = load_text_model(str(tmp_path))
    assert isinstance(model, Qwen2ForCausalLM) and model.dtype == torch.float64
    assert (model.lm_head.weight is model.model.embed_tokens.weight) == tied
    ids = torch.tensor([[0, 0, 5, 9, 11, 30], [7, 8, 9, 10, 11, 12]])
    inputs = {"input_ids": ids, "attention_mask": (ids != 0).long()}
    ours, theirs = model(**inputs).logits, source(**inputs).logits
    torch.testing.assert_close(ours[ids != 0], theirs[ids != 0], rtol=1e-12, atol=1e-12)


def _as_on_the_hub(config: Qwen2_5_VLConfig) -> dict:
    """The published `config.json`: the language model's fields at the top, rope in its former form."""
    text = config.text_config.to_dict()
    rope = text.pop("rope_parameters")
    former = {
        "rope_theta": rope["rope_theta"],
        "rope_scaling": {"type": "mrope", "mrope_section": ROPE["mrope_section"]},
    }
    whole = {
        "model_type": "qwen2_5_vl",
        "vision_config": {**TOWER, "model_type": "qwen2_5_vl"},
        "torch_dtype": "float64",
    }
    own = {"tie_word_embeddings": config.tie_word_embeddings}
    return {**text, **former, **whole, **own}


def _inner(name: str) -> str:
    if name.startswith("visual."):
        return f"model.{name}"
    return name.replace("model.", "model.language_model.", 1)


def test_the_tower_is_not_kept_in_memory(tmp_path):
    qwen_vl().save_pretrained(tmp_path)
    model = load_text_model(str(tmp_path))
    gc.collect()
    assert not any("visual" in name for name, _ in model.named_parameters())
    assert sum(weight.numel() for weight in model.parameters()) == 50 * 16 * 2 + 16 + 2 * (
        (16 * 16 + 16) + 2 * (16 * 8 + 8) + 16 * 16 + 3 * 16 * 24 + 2 * 16
    )


def test_files_that_lack_weights_are_refused(tmp_path):
    qwen_vl().save_pretrained(tmp_path)
    file = tmp_path / "model.safetensors"
    save_file({n: w for n, w in load_file(file).items() if "model.norm" not in n}, file, {"format": "pt"})
    with pytest.raises(ValueError, match=r"no Qwen2.5-VL as published: \['model.norm.weight'\] are missing"):
        load_text_model(str(tmp_path))


def test_a_composite_of_a_qwen2_5_vl_speaks_our_placeholders(tmp_path):
    tokenizer = tiny_avt_tokenizer()
    tokenizer.chat_template = TEMPLATE
    qwen_vl(vocab_size=len(tokenizer)).save_pretrained(tmp_path / "vl")
    tokenizer.save_pretrained(tmp_path / "vl")
    model, processor = build_composite(
        str(tmp_path / "vl"), vision=build_encoder(VISION["clip"]()), image_processor=_pictures()
    )
    image = {"role": "user", "content": [{"type": "image", "image": 0}, {"type": "text", "text": "What is it?"}]}
    assert processor.apply_chat_template([image]) == "<|user|><image>What is it?<|end|>"
    spec = RoutingSpec.from_pretrained(model, processor)
    assert spec.placeholders["visual"] == (model.config.image_token_id, model.config.video_token_id)
    assert model.config.text_config.model_type == "qwen2"
    model.save_pretrained(tmp_path / "all")
    loaded = CompositeForConditionalGeneration.from_pretrained(tmp_path / "all")
    assert all(torch.equal(a, b) for a, b in zip(model.parameters(), loaded.parameters(), strict=True))


def _pictures():
    processor = tiny_avt_processor().image_processor
    processor.size = {"height": 16, "width": 16}
    return processor


@pytest.mark.parametrize("family", [LlamaConfig, Qwen2Config, MistralConfig])
@pytest.mark.parametrize("tied", [False, True])
def test_any_causal_language_model_reads_media(tmp_path, family, tied):
    torch.manual_seed(0)
    config = composite_config(VISION["clip"](), text_config=family(**TEXT, tie_word_embeddings=tied))
    model = CompositeForConditionalGeneration(config).eval()
    ids = torch.tensor([[1, *[IMAGE_ID] * 4, 9, 10]])
    pixels = torch.randn(1, 3, 16, 16)
    outputs = model(input_ids=ids, pixel_values=pixels, labels=ids)
    outputs.loss.backward()
    assert model.vision_projector[1].weight.grad.any()
    model.save_pretrained(tmp_path)
    loaded = CompositeForConditionalGeneration.from_pretrained(tmp_path)
    assert (loaded.get_output_embeddings().weight is loaded.get_input_embeddings().weight) == tied
    assert torch.equal(loaded(input_ids=ids, pixel_values=pixels).logits, outputs.logits)
