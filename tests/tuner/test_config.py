"""MokaConfig takes LoraConfig's keywords and names what does not fit."""

import dataclasses
import json

import pytest
from peft import LoraConfig, PeftConfig

from moka_peft import MokaConfig, RoutingSpec

OWN_CHOICES = {"r": 4, "lora_alpha": 8, "lora_dropout": 0.1, "target_modules": ["q_proj"], "use_rslora": True}


@pytest.mark.parametrize("keyword", [f.name for f in dataclasses.fields(LoraConfig) if f.init])
def test_every_lora_keyword_is_accepted_at_its_default(keyword):
    default = getattr(LoraConfig(), keyword)
    MokaConfig(**{keyword: default if keyword != "peft_type" else None})


def test_lora_values_keep_their_meaning():
    config = MokaConfig(**OWN_CHOICES)
    assert {name: getattr(config, name) for name in OWN_CHOICES} == {**OWN_CHOICES, "target_modules": {"q_proj"}}


@pytest.mark.parametrize(
    ("keywords", "message"),
    [
        ({"use_dora": True}, "`use_dora` of LoraConfig is not implemented for MokA: expected its neutral value False"),
        ({"alora_invocation_tokens": [1]}, "`alora_invocation_tokens`"),
        ({"target_parameters": ["w"]}, "`target_parameters`"),
        ({"r": 0}, "`r`: expected a rank, an integer > 0, got 0"),
        ({"r": 2.5}, "`r`: expected a rank"),
        ({"rank_pattern": {"q_proj": -1}}, r"`rank_pattern\['q_proj'\]`"),
        ({"lora_dropout": 1.0}, "`lora_dropout`"),
        ({"cross_scale": float("nan")}, "`cross_scale`"),
        ({"bias": "some"}, "`bias`"),
        ({"init_lora_weights": "pissa"}, "`init_lora_weights`"),
        ({"supervised_instruction": "warn"}, "`supervised_instruction`"),
        ({"interaction": "cross"}, "`interaction`"),
        ({"interaction": "text_query", "instruction_span": "contiguous"}, "`instruction_span`"),
        ({"layers_pattern": "layers"}, "`layers_pattern` needs `layers_to_transform`"),
        ({"modalities": ("visual", "text")}, "`modalities`: expected distinct names that start with 'text'"),
        ({"routing": {"placeholders": {"visual": [1]}, "open": []}}, "unknown keys"),
    ],
)
def test_bad_values_are_named(keywords, message):
    with pytest.raises(ValueError, match=message):
        MokaConfig(**keywords)


def test_misspelt_keyword_is_refused():
    with pytest.raises(TypeError, match="cross_scales"):
        MokaConfig(cross_scales=1.0)


def test_saved_and_read_back(tmp_path):
    spec = RoutingSpec(placeholders={"visual": (5, 6)}, user_open=((1, 2),), user_close=((3,),), skip=(7, ((8,), (9,))))
    config = MokaConfig(r=5, modalities=("text", "visual"), cross_scale=[0.5], routing=spec, target_modules=["q_proj"])
    config.save_pretrained(str(tmp_path))
    loaded = PeftConfig.from_pretrained(str(tmp_path))
    assert isinstance(loaded, MokaConfig)
    assert (loaded.r, loaded.modalities, loaded.routing, loaded.cross_scale) == (5, ("text", "visual"), spec, [0.5])
    assert json.loads((tmp_path / "adapter_config.json").read_text())["peft_type"] == "MOKA"


def test_folder_readme_opens_with_the_import(tmp_path):
    MokaConfig(base_model_name_or_path="some/base").save_pretrained(str(tmp_path))
    MokaConfig().save_pretrained(str(tmp_path))  # a second save adds nothing
    text = (tmp_path / "README.md").read_text()
    assert text.count("import moka_peft") == 1 and "some/base" in text
