"""The MokA adapter as a PEFT method; importing it registers peft type "MOKA"."""

from peft.mapping import (
    PEFT_TYPE_TO_CONFIG_MAPPING,
    PEFT_TYPE_TO_PREFIX_MAPPING,
    PEFT_TYPE_TO_TUNER_MAPPING,
)

from .channel import channel_of, media_with_keys, use_routing
from .config import MokaConfig, MokaPeftType
from .layer import MokaLinear
from .model import MokaModel

PEFT_TYPE_TO_CONFIG_MAPPING[MokaPeftType.MOKA] = MokaConfig  # pyright: ignore[reportArgumentType]
PEFT_TYPE_TO_TUNER_MAPPING[MokaPeftType.MOKA] = MokaModel  # pyright: ignore[reportArgumentType]
PEFT_TYPE_TO_PREFIX_MAPPING[MokaPeftType.MOKA] = MokaModel.prefix  # pyright: ignore[reportArgumentType]

__all__ = ["MokaConfig", "MokaLinear", "MokaModel", "channel_of", "media_with_keys", "use_routing"]
