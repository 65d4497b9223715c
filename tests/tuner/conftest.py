"""An adapted tiny model whose delta is far from zero."""

from __future__ import annotations

import pytest
import torch
from peft import get_peft_model

from moka_peft import MokaConfig


@pytest.fixture
def adapted(tiny_lm, spec):
    """adapted(**config) -> PeftModel with random A and B; the base differs by `seed`, the adapter does not."""

    def build(seed=0, base=None, **overrides):
        config = MokaConfig(**{"r": 3, "lora_alpha": 6, "modalities": ("text", "visual", "audio"), **overrides})
        if "routing" not in overrides:
            config.routing = spec
        model = get_peft_model(base if base is not None else tiny_lm(seed), config)
        randomise(model)
        return model.eval()

    return build


def randomise(model, seed=1):
    generator = torch.Generator().manual_seed(seed)
    for name, parameter in model.named_parameters():
        if "moka_" in name:
            parameter.data = torch.randn(parameter.shape, generator=generator).to(parameter.dtype) * 0.3


@pytest.fixture(name="randomise")
def _randomise():
    return randomise
