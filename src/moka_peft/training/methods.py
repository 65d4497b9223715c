"""The methods that a recipe's adapter can have, and which settings mean something to each of them."""

from collections.abc import Mapping
from dataclasses import fields
from typing import Any

from peft import LoraConfig, PeftConfig

from moka_peft.baselines import RIVALS
from moka_peft.tuner import MokaConfig

PEFTS_OWN: dict[str, dict[str, Any]] = {"lora": {}, "dora": {"use_dora": True}}
"""Methods that PEFT itself brings, and the keywords of `LoraConfig` that make them."""

CONFIGS: dict[str, Any] = {
    "moka": MokaConfig,
    **dict.fromkeys(PEFTS_OWN, LoraConfig),
    **{name: config for name, (config, _) in RIVALS.items()},
}
"""Name of a method -> its PeftConfig. `none`, parts alone, has none."""

TITLES = {
    "lora": "LoRA",
    "dora": "DoRA",
    "multiple_lora": "Multiple LoRA",
    "lora_moe": "LoRAMoE",
    "hydra_lora": "HydraLoRA",
    "uni_modal_lora": "Uni-modal LoRA",
    "uni_mm_lora": "Uni + MM LoRA",
    "uni_mm_lora_gate": "Uni + MM LoRA, gate",
    "imod": "IMoD",
    "moka": "MokA",
    "moka_shared_a": "MokA, one A",
}
"""Name of a method -> what texts and tables call it."""


def known_settings(method: str) -> set[str]:
    """The keywords that the config of a method takes."""
    if method == "none":
        return {"modules_to_save"}
    return {field.name for field in fields(CONFIGS[method])}


def build_config(method: str, settings: Mapping[str, Any], **routed: Any) -> PeftConfig:
    """The config of a method with those of `settings` that it knows; None is its own default.

    routed: keywords for methods that tell modalities apart, such as `routing`.
    """
    known = known_settings(method)
    own = {key: value for key, value in settings.items() if key in known and value is not None}
    if method in PEFTS_OWN:
        return LoraConfig(**own, **PEFTS_OWN[method])
    return CONFIGS[method](**own, **routed)
