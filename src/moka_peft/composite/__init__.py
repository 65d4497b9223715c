"""Any language model with vision and audio encoders and projectors, as one transformers model; knows no adapters."""

from transformers import AutoConfig, AutoModelForImageTextToText, AutoProcessor

from .build import add_placeholders, build_composite, fit_processor
from .config import CompositeConfig
from .model import CompositeForConditionalGeneration
from .processor import CompositeProcessor
from .tiny_avt import load_tiny_avt, tiny_avt_config, tiny_avt_processor

AutoConfig.register(CompositeConfig.model_type, CompositeConfig, exist_ok=True)
AutoModelForImageTextToText.register(CompositeConfig, CompositeForConditionalGeneration, exist_ok=True)
AutoProcessor.register(CompositeConfig, CompositeProcessor, exist_ok=True)

__all__ = [
    "CompositeConfig",
    "CompositeForConditionalGeneration",
    "CompositeProcessor",
    "add_placeholders",
    "build_composite",
    "fit_processor",
    "load_tiny_avt",
    "tiny_avt_config",
    "tiny_avt_processor",
]
