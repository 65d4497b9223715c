"""A frozen encoder keeps nothing for a backward, whatever asks for gradients of inputs, and drops nothing out."""

import pytest
import torch

from moka_peft.composite import CompositeForConditionalGeneration

from .conftest import VISION, composite_config


def _enable(composite, how):
    if how == "checkpointing":
        composite.gradient_checkpointing_enable({"use_reentrant": False})
    else:
        composite.enable_input_require_grads()


@pytest.mark.filterwarnings("ignore:`gradient_checkpointing_enable` is deprecated:FutureWarning")
@pytest.mark.parametrize("how", ["checkpointing", "inputs"])
def test_gradients_do_not_enter_a_frozen_encoder(composite, inputs, how):
    composite.requires_grad_(False)
    _enable(composite, how)
    batch = inputs("itat")
    composite.train()
    for kind, name in (("image", "pixel_values"), ("audio", "input_features")):
        assert not composite.embed_media(kind, batch[name]).requires_grad
    assert composite.get_input_embeddings()(batch["input_ids"]).requires_grad
    composite.disable_input_require_grads()
    assert not composite.get_input_embeddings()(batch["input_ids"]).requires_grad


@pytest.mark.parametrize("trains", [False, True])
def test_dropout_of_a_projector_is_off_where_it_is_frozen(trains):
    """Stage 2 may leave stage 1's Q-Former as it is: training must see what inference will."""
    qformer = {"type": "qformer", "hidden_size": 8, "num_attention_heads": 2, "intermediate_size": 12, "dropout": 0.5}
    model = CompositeForConditionalGeneration(composite_config(VISION["clip"](), vision_projector=qformer))
    model.requires_grad_(False)
    model.vision_projector.requires_grad_(trains)
    model.train()
    pixels = torch.rand(1, 3, 16, 16)
    first, second = (model.embed_media("image", pixels) for _ in range(2))
    assert torch.equal(first, second) is not trains
