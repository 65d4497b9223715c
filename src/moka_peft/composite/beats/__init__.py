"""BEATs, an audio encoder that transformers does not have (arXiv 2212.09058), with its published checkpoints.

Importing this makes the Auto classes know it, so that saved folders load like any other encoder's.
"""

from transformers import AutoConfig, AutoFeatureExtractor, AutoModel

from .checkpoint import load_beats, read_beats_config, save_beats
from .config import BeatsConfig
from .features import BeatsFeatureExtractor
from .model import BeatsModel

AutoConfig.register(BeatsConfig.model_type, BeatsConfig, exist_ok=True)
AutoModel.register(BeatsConfig, BeatsModel, exist_ok=True)
AutoFeatureExtractor.register(BeatsConfig, BeatsFeatureExtractor, exist_ok=True)

__all__ = ["BeatsConfig", "BeatsFeatureExtractor", "BeatsModel", "load_beats", "read_beats_config", "save_beats"]
