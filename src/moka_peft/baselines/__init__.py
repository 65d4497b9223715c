"""What MokA is compared with, as PEFT methods on the same routing; importing it registers their peft types.

LoRA and DoRA are PEFT's own.
"""

from typing import Any

from peft.mapping import (
    PEFT_TYPE_TO_CONFIG_MAPPING,
    PEFT_TYPE_TO_PREFIX_MAPPING,
    PEFT_TYPE_TO_TUNER_MAPPING,
)

from .hydra_lora import HydraLoraConfig, HydraLoraModel
from .imod import ImodConfig, ImodModel
from .lora_moe import LoraMoeConfig, LoraMoeModel
from .moka_shared_a import MokaSharedAConfig, MokaSharedAModel
from .multiple_lora import MultipleLoraConfig, MultipleLoraModel
from .uni_mm_lora import UniMmLoraConfig, UniMmLoraGateConfig, UniMmLoraModel
from .uni_modal_lora import UniModalLoraConfig, UniModalLoraModel

RIVALS: dict[str, tuple[Any, Any]] = {
    "multiple_lora": (MultipleLoraConfig, MultipleLoraModel),
    "lora_moe": (LoraMoeConfig, LoraMoeModel),
    "hydra_lora": (HydraLoraConfig, HydraLoraModel),
    "uni_modal_lora": (UniModalLoraConfig, UniModalLoraModel),
    "uni_mm_lora": (UniMmLoraConfig, UniMmLoraModel),
    "uni_mm_lora_gate": (UniMmLoraGateConfig, UniMmLoraModel),
    "imod": (ImodConfig, ImodModel),
    "moka_shared_a": (MokaSharedAConfig, MokaSharedAModel),
}
"""Name of a method -> its config and its model."""

for _config, _model in RIVALS.values():
    PEFT_TYPE_TO_CONFIG_MAPPING[_config.kind] = _config
    PEFT_TYPE_TO_TUNER_MAPPING[_config.kind] = _model
    PEFT_TYPE_TO_PREFIX_MAPPING[_config.kind] = _model.prefix

__all__ = [
    "RIVALS",
    "HydraLoraConfig",
    "ImodConfig",
    "LoraMoeConfig",
    "MokaSharedAConfig",
    "MultipleLoraConfig",
    "UniMmLoraConfig",
    "UniMmLoraGateConfig",
    "UniModalLoraConfig",
]
