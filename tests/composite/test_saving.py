"""Saving and loading: every weight bit for bit, for each encoder, through the auto classes."""

import pytest
import torch
from transformers import AutoConfig, AutoModelForImageTextToText, AutoProcessor

from moka_peft.composite import (
    CompositeConfig,
    CompositeForConditionalGeneration,
    CompositeProcessor,
    tiny_avt_processor,
)

from .conftest import AUDIO, VISION, composite_config, text_config

PAIRS = [*((name, None) for name in VISION), *((None, name) for name in AUDIO), ("clip", "whisper"), (None, None)]


@pytest.mark.parametrize(("vision", "audio"), PAIRS)
def test_weights_and_config_come_back_bit_for_bit(tmp_path, vision, audio):
    config = composite_config(vision and VISION[vision](), audio and AUDIO[audio]())
    model = CompositeForConditionalGeneration(config)
    with torch.no_grad():
        for weight in model.parameters():
            weight.normal_()  # no value that a fresh model could have by itself
    model.save_pretrained(tmp_path)
    loaded, report = AutoModelForImageTextToText.from_pretrained(tmp_path, output_loading_info=True)
    assert not any(report.values())
    expected, found = model.state_dict(), loaded.state_dict()
    assert expected.keys() == found.keys()
    assert all(torch.equal(expected[name], found[name]) for name in expected)
    assert loaded.generation_config.suppress_tokens == model.generation_config.suppress_tokens


def test_tied_embeddings_stay_tied(tmp_path):
    model = CompositeForConditionalGeneration(
        composite_config(VISION["vit"](), text_config=text_config(tie_word_embeddings=True))
    )
    assert model.get_output_embeddings().weight is model.get_input_embeddings().weight
    model.save_pretrained(tmp_path)
    loaded = CompositeForConditionalGeneration.from_pretrained(tmp_path)
    assert loaded.get_output_embeddings().weight is loaded.get_input_embeddings().weight
    assert torch.equal(loaded.get_input_embeddings().weight, model.get_input_embeddings().weight)


def test_settings_come_back(tmp_path):
    config = composite_config(
        VISION["clip"](),
        vision_feature_layers=[1, 2],
        vision_feature_select="all",
        vision_projector={"type": "linear", "norm": True},
    )
    config.save_pretrained(tmp_path)
    loaded = AutoConfig.from_pretrained(tmp_path)
    assert isinstance(loaded, CompositeConfig)
    assert {**loaded.to_dict(), "_name_or_path": ""} == config.to_dict()


@pytest.mark.parametrize("absent", [(), ("image_processor",), ("feature_extractor",)])
def test_a_processor_comes_back(tmp_path, absent):
    full = tiny_avt_processor()
    parts = {n: None if n in absent else getattr(full, n) for n in ("image_processor", "feature_extractor")}
    processor = CompositeProcessor(
        **parts, tokenizer=full.tokenizer, tokens_per_image=7, chat_template="{{ messages }}"
    )
    processor.save_pretrained(tmp_path)
    loaded = AutoProcessor.from_pretrained(tmp_path)
    assert isinstance(loaded, CompositeProcessor)
    assert loaded.to_dict() == processor.to_dict()
    assert loaded.chat_template == "{{ messages }}"
    assert loaded(text="<|user|>hello").input_ids == processor(text="<|user|>hello").input_ids
    assert [name for name in parts if getattr(loaded, name) is None] == list(absent)
