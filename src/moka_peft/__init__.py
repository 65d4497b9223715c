"""moka-peft: multimodal-aware parameter-efficient fine-tuning.

Importing it registers the adapter with PEFT and the composite model with transformers.
"""

from . import baselines as _baselines  # registers the rivals with PEFT
from . import composite as _composite  # registers the composite with AutoConfig, AutoModel... and AutoProcessor
from .routing import Routing, RoutingSpec, route
from .tuner import MokaConfig, MokaModel, media_with_keys, use_routing

__all__ = ["MokaConfig", "MokaModel", "Routing", "RoutingSpec", "media_with_keys", "route", "use_routing"]
__version__ = "0.1.0"
del _baselines, _composite
