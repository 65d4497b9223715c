"""The published architectures: parameter counts, vocabularies, positions and ties of the models on the hub."""

import pytest
import torch
import transformers

from moka_peft.composite.published import published_config, published_names

PARAMETERS = {  # totals that are known of the published weights; the files themselves were not read
    "meta-llama/Llama-2-7b-chat-hf": 6_738_415_616,
    "meta-llama/Meta-Llama-3-8B-Instruct": 8_030_261_248,
    "Qwen/Qwen2-7B-Instruct": 7_615_616_512,
    "Qwen/Qwen2.5-VL-7B-Instruct": 8_292_166_656,
    "Qwen/Qwen2.5-VL-3B-Instruct": 3_754_622_976,
    "Qwen/Qwen2-Audio-7B-Instruct": 8_397_094_912,
    "llava-hf/llava-1.5-7b-hf": 7_063_427_072,
    "openai/clip-vit-large-patch14": 427_616_513,
    "openai/clip-vit-large-patch14-336": 427_944_193,
    "google/siglip-so400m-patch14-384": 877_960_498,
    "openai/whisper-large-v3": 1_543_490_560,
    "facebook/hubert-large-ll60k": 315_438_720,
}


def _on_meta(name: str):
    config = published_config(name)
    with torch.device("meta"):
        return getattr(transformers, config.architectures[0])._from_config(config)


@pytest.mark.parametrize("name", PARAMETERS)
def test_a_published_model_has_its_published_number_of_parameters(name):
    assert sum(weight.numel() for weight in _on_meta(name).parameters()) == PARAMETERS[name]


@pytest.mark.parametrize(
    ("name", "theta", "section"),
    [
        ("meta-llama/Llama-2-7b-chat-hf", 1e4, None),
        ("meta-llama/Meta-Llama-3-8B-Instruct", 5e5, None),
        ("Qwen/Qwen2-7B-Instruct", 1e6, None),
        ("Qwen/Qwen2.5-VL-7B-Instruct", 1e6, [16, 24, 24]),
        ("Qwen/Qwen2-Audio-7B-Instruct", 1e4, None),
        ("Qwen/Qwen2.5-Omni-7B", 1e6, [16, 24, 24]),
    ],
)
def test_positions_are_the_published_ones(name, theta, section):
    text = published_config(name).get_text_config()
    rope = text.rope_parameters
    assert (rope["rope_theta"], rope["rope_type"], rope.get("mrope_section")) == (theta, "default", section)
    assert text.vocab_size in (32000, 128256, 152064, 156032)


def test_only_the_small_qwen_ties_its_head():
    tied = [name for name in published_names() if "Qwen2.5-VL" in name and published_config(name).tie_word_embeddings]
    assert tied == ["Qwen/Qwen2.5-VL-3B-Instruct"]


def test_configs_are_fresh_each_time():
    published_config("meta-llama/Llama-2-7b-chat-hf").num_hidden_layers = 1
    assert published_config("meta-llama/Llama-2-7b-chat-hf").num_hidden_layers == 32


def test_an_unknown_name_lists_the_known_ones():
    with pytest.raises(ValueError, match="meta-llama/Llama-2-7b-chat-hf.*got 'someone/else'"):
        published_config("someone/else")
