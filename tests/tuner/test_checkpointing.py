"""Gradient checkpointing recomputes each layer with the routing of its own forward."""

import pytest
import torch
from torch.distributed.algorithms._checkpoint.checkpoint_wrapper import CheckpointImpl, checkpoint_wrapper


def gradients(model, batches, *, checkpointing):
    """Gradients of two forwards before one backward."""
    if checkpointing is not None:
        options = {"use_reentrant": checkpointing == "reentrant"}
        if hasattr(model, "activation_checkpointing_enable"):  # the name since transformers 5.23
            model.activation_checkpointing_enable(activation_checkpointing_kwargs=options)
        else:
            model.gradient_checkpointing_enable(gradient_checkpointing_kwargs=options)
        model.enable_input_require_grads()
    model.train().zero_grad()
    sum(model(ids).logits.square().mean() for ids in batches).backward()
    return {n: p.grad.clone() for n, p in model.named_parameters() if "moka_" in n}


@pytest.mark.parametrize("mode", ["reentrant", "non-reentrant"])
@pytest.mark.parametrize("forwards", [1, 2])
def test_checkpointing_changes_no_gradient(adapted, chat, mode, forwards):
    batches = [chat("vvxyzq", "pp"), chat("xavwqz", "mm")][:forwards]  # same shapes, other routing
    expected = gradients(adapted(), batches, checkpointing=None)
    got = gradients(adapted(), batches, checkpointing=mode)
    for name, gradient in expected.items():
        torch.testing.assert_close(got[name], gradient, rtol=1e-5, atol=1e-7)


def test_two_forwards_of_other_shapes(adapted, chat):
    batches = [chat("vvxyzq", "pp"), chat("aw", "m")]
    expected = gradients(adapted(), batches, checkpointing=None)
    got = gradients(adapted(), batches, checkpointing="non-reentrant")
    for name, gradient in expected.items():
        torch.testing.assert_close(got[name], gradient, rtol=1e-5, atol=1e-7)


def test_enabled_after_a_first_forward(adapted, chat):
    batches = [chat("vvxyzq", "pp"), chat("xavwqz", "mm")]
    model = adapted().train()
    model(batches[0])
    expected = gradients(adapted(), batches, checkpointing=None)
    for name, gradient in gradients(model, batches, checkpointing="non-reentrant").items():
        torch.testing.assert_close(gradient, expected[name], rtol=1e-5, atol=1e-7)


def test_a_second_adapter_after_the_first_was_taken_off(adapted, chat):
    """The base keeps its checkpointing on between the two, and nothing of the first adapter."""
    batches = [chat("vvxyzq", "pp"), chat("xavwqz", "mm")]
    expected = gradients(adapted(), batches, checkpointing=None)
    first = adapted()
    gradients(first, batches, checkpointing="non-reentrant")
    again = adapted(base=first.unload())
    for name, gradient in gradients(again, batches, checkpointing=None).items():
        torch.testing.assert_close(gradient, expected[name], rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize("kind", [CheckpointImpl.REENTRANT, CheckpointImpl.NO_REENTRANT])
def test_torchs_wrappers_around_the_layers(adapted, chat, kind):
    """What FSDP's `activation_checkpointing` puts there after the adapter, and what is left of it."""
    batches = [chat("vvxyzq", "pp"), chat("xavwqz", "mm")]
    expected = gradients(adapted(), batches, checkpointing=None)
    model = adapted()
    model.enable_input_require_grads()
    model.config.use_cache = False
    layers = model.get_base_model().model.layers
    for index, layer in enumerate(layers):
        layers[index] = checkpoint_wrapper(layer, kind)
    own = [layer.checkpoint_fn for layer in layers]
    for name, gradient in gradients(model, batches, checkpointing=None).items():
        expected_one = expected[name.replace("_checkpoint_wrapped_module.", "")]
        torch.testing.assert_close(gradient, expected_one, rtol=1e-5, atol=1e-7)
    model.unload()
    assert [layer.checkpoint_fn for layer in layers] == own


def test_recomputation_outside_the_models_own_checkpointing_raises(adapted, chat):
    """Anyone else's checkpoint around a layer recomputes without routing: an error, not another forward's routing."""
    model, ids = adapted().train(), chat("vvxyzq", "pp")
    mlp = model.get_base_model().model.layers[0].mlp
    plain = mlp.forward
    mlp.forward = lambda x: torch.utils.checkpoint.checkpoint(plain, x, use_reentrant=False)
    loss = model(ids).logits.sum()
    with pytest.raises(RuntimeError, match="ran outside a forward of the model"):
        loss.backward()
