"""A frozen encoder keeps nothing for a backward, whatever asks for gradients of inputs."""

import pytest


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
