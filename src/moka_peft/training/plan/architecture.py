"""The model of a recipe at full size on the meta device: its shapes, and nothing of its weights."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
import transformers
from peft import PeftModel
from transformers import AutoConfig, AutoModelForImageTextToText, PreTrainedConfig

from moka_peft.composite import CompositeConfig, CompositeForConditionalGeneration, tiny_avt_config
from moka_peft.composite.encoders import VISION_HALF_OF
from moka_peft.composite.kinds import MEDIA_PARTS
from moka_peft.composite.published import published_config, published_names
from moka_peft.composite.text_models import text_config_of
from moka_peft.routing import RoutingSpec
from moka_peft.routing.placeholders import media_token_ids, placeholders_by_modality
from moka_peft.training.methods import CONFIGS
from moka_peft.training.model import add_adapter
from moka_peft.tuner import MokaConfig

SPARE_ROWS = ("qwen2",)
"""Language models whose embeddings have rows that no token uses: placeholders take some of them."""


def architecture(name: str) -> PreTrainedConfig:
    """The config of a model: published, in a folder, or downloaded earlier; nothing is downloaded.

    Raises ValueError where it is none of these.
    """
    if name in published_names() or name.endswith(".pt"):
        return published_config(name)
    try:
        return AutoConfig.from_pretrained(name, local_files_only=True)
    except (OSError, ValueError) as error:
        raise ValueError(
            f"`{name}` is no model whose sizes are known here: expected a folder with a config.json, a hub id that was "
            f"downloaded before, or one of {', '.join(published_names())}. Put its config.json into a folder and name "
            f"that."
        ) from error


def base_on(device: str, model: Mapping[str, Any]) -> Any:
    """The base model of a recipe's section `model`, frozen, on `device`; with random weights where that has any."""
    return build_on(device, recipe_architecture(model), model["dtype"])


def recipe_architecture(model: Mapping[str, Any]) -> PreTrainedConfig:
    """The config of the base model of a recipe's section `model`."""
    if model.get("text"):
        return composite_architecture(model)
    return tiny_avt_config() if model["name"] == "tiny-avt" else architecture(model["name"])


def build_on(device: str, config: Any, dtype: str) -> Any:
    """A frozen model of `config`; no weight is ever there in another dtype or on another device."""
    chosen, default = _dtype(dtype, config), torch.get_default_dtype()
    torch.set_default_dtype(chosen)
    try:
        with torch.device(device):
            base = _build(config, chosen)
    finally:
        torch.set_default_dtype(default)
    return base.to(chosen).requires_grad_(False).eval()


def adapted(base: Any, adapter: Mapping[str, Any], train: Sequence[str]) -> PeftModel:
    """`base` with the adapter of a recipe and its trained parts, as training puts them on it.

    On the meta device in plain torch, which keeps what a GPU's kernels keep: of dropout, no mask.
    """
    settings = dict(adapter)
    has_kernels = issubclass(CONFIGS.get(settings["method"], object), MokaConfig)
    if base.device.type == "meta" and has_kernels:
        settings |= {"impl": "eager", "lora_dropout": 0.0}
    with torch.device(base.device):
        return add_adapter(base, None, **settings, train=train, routing=routing_of(base.config))


def routing_of(config: Any) -> RoutingSpec:
    """A routing by the model's own placeholders; its turns are those of no chat template, and nothing reads them."""
    ids = media_token_ids(config)
    free = [token for token in range(len(ids) + 2) if token not in ids.values()]
    return RoutingSpec(placeholders_by_modality(ids), user_open=((free[0],),), user_close=((free[1],),))


def composite_architecture(model: Mapping[str, Any]) -> CompositeConfig:
    """The config of a composite of a recipe's parts, with a row more in the embeddings for every placeholder."""
    text: Any = text_config_of(architecture(model["text"]))
    encoders = {part: model[part] for part in MEDIA_PARTS if model.get(part) is not None}
    kinds = [kind for part in encoders for kind in MEDIA_PARTS[part]]
    if text.model_type not in SPARE_ROWS:
        text.vocab_size += len(kinds)
    settings: dict[str, Any] = {f"{kind}_token_id": text.vocab_size - 1 - i for i, kind in enumerate(kinds)}
    for part, section in encoders.items():
        settings[f"{part}_config"] = _encoder_architecture(section["name"])
        for field in ("projector", "feature_layers", "feature_select"):
            if section.get(field) is not None:
                settings[f"{part}_{field}"] = section[field]
    return CompositeConfig(text_config=text, **settings)


def _encoder_architecture(name: str) -> PreTrainedConfig:
    config: Any = architecture(name)
    return config.vision_config if config.model_type in VISION_HALF_OF else config


def _build(config: Any, dtype: torch.dtype) -> Any:
    if isinstance(config, CompositeConfig):
        return CompositeForConditionalGeneration(config)
    if type(config) in AutoModelForImageTextToText._model_mapping:
        return AutoModelForImageTextToText.from_config(config, dtype=dtype)
    model_class = getattr(transformers, (config.architectures or [""])[0], None)
    if model_class is None:
        raise ValueError(
            f"`architectures` names no model class of transformers: expected one in the config of {config.model_type}, "
            f"got {config.architectures}. Add it to the folder's config.json."
        )
    return model_class._from_config(config, dtype=dtype)


def _dtype(name: str, config: Any) -> torch.dtype:
    """The dtype of the weights; "auto": the one that they were published in, the language model's for a composite."""
    if name != "auto":
        return getattr(torch, name)
    kept = getattr(config.get_text_config(), "dtype", None) or getattr(config, "dtype", None)
    return getattr(torch, kept) if isinstance(kept, str) else kept or torch.float32
