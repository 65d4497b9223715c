"""The families: a tiny random model of every kind of multimodal model, and inputs for it."""

from __future__ import annotations

from .layout import Family
from .zoo_audio import AUDIO_FAMILIES
from .zoo_qwen import QWEN_FAMILIES
from .zoo_vision import VISION_FAMILIES

FAMILIES: dict[str, Family] = {family.name: family for family in (*QWEN_FAMILIES, *AUDIO_FAMILIES, *VISION_FAMILIES)}
