"""The language model of a composite: any causal language model, or the one inside a Qwen2.5-VL."""

from typing import Any

import torch
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    PreTrainedConfig,
    PreTrainedModel,
    Qwen2Config,
    Qwen2ForCausalLM,
)

from .loading import load_whole

VISUAL_KEYS = r"^(model\.)?visual\."
INNER_KEYS = r"^model\.language_model\."
"""Names in Qwen2.5-VL's files: the tower's, and the decoder's where a later transformers wrote them."""

NOTHING = r"(?!)"


class WithoutVisionQwen2ForCausalLM(Qwen2ForCausalLM):
    """A Qwen2 read from a Qwen2.5-VL: the tower's weights in the files are left there; its name says its loss."""

    _keys_to_ignore_on_load_unexpected = [VISUAL_KEYS]


def load_text_model(name: str, dtype: str | torch.dtype = "auto") -> PreTrainedModel:
    """Loads a causal language model from a hub id or a folder; of a Qwen2.5-VL its language model, as a Qwen2.

    A Qwen2.5-VL turns positions in three directions, which on text are equal: then its rotation is the plain one.
    Raises OSError where there is no such model, ValueError where it is none that writes text.
    """
    config: Any = AutoConfig.from_pretrained(name)
    if config.model_type != "qwen2_5_vl":
        return load_whole(AutoModelForCausalLM.from_pretrained, name, NOTHING, dtype=dtype)
    model, report = WithoutVisionQwen2ForCausalLM.from_pretrained(  # pyright: ignore[reportGeneralTypeIssues]
        name, config=text_config_of(config), dtype=dtype, key_mapping={INNER_KEYS: "model."}, output_loading_info=True
    )
    wrong = sorted({*report["missing_keys"], *report["unexpected_keys"]})
    if wrong:
        raise ValueError(f"`{name}` is no Qwen2.5-VL as published: {wrong[:3]} are missing or unknown. Get it anew.")
    return model


def text_config_of(config: Any) -> PreTrainedConfig:
    """The config of the language model that `load_text_model` gives for a model's config: itself, or a Qwen2Config."""
    if config.model_type != "qwen2_5_vl":
        return config
    settings = {key: value for key, value in config.text_config.to_dict().items() if key != "model_type"}
    rope = {key: value for key, value in settings.pop("rope_parameters").items() if key != "mrope_section"}
    return Qwen2Config(**settings, rope_parameters=rope, tie_word_embeddings=config.tie_word_embeddings)
