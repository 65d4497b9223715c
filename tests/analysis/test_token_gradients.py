"""The parts of the gradient by modality: they sum to it, and are those of a formula."""

import pytest
import torch

from moka_peft.analysis.adapted_layers import adapted_layers, adapter_parameters, routing_of_forwards
from moka_peft.analysis.token_gradients import answer_losses, split_gradients

from .adapters import METHODS, adapt, trained_on


@pytest.fixture
def batch(chat):
    return trained_on([chat("vvqw", "rr"), chat("aqe", "st"), chat("hvaq", "r", "wvs", "xy")], answered=2)


def split(model, spec, batch):
    with routing_of_forwards(model, spec) as channel:
        return [sample.layers for sample in split_gradients(model, channel, "default", batch, 3)]


@pytest.mark.parametrize("method", METHODS)
def test_parts_sum_to_the_gradient(tiny_lm, spec, batch, method):
    model = adapt(tiny_lm(), method, spec)
    found = split(model, spec, batch)
    assert len(found) == 3
    layers = adapted_layers(model)
    for index, gradients in enumerate(found):
        model.zero_grad()
        answer_losses(model, batch)[index].backward()
        for name, layer in layers.items():
            for matrix, weight in adapter_parameters(layer, "default").items():
                expected = torch.zeros_like(weight) if weight.grad is None else weight.grad
                torch.testing.assert_close(gradients[name][matrix].sum(0), expected, rtol=1e-9, atol=1e-13)


def test_tokens_are_counted(tiny_lm, spec, batch):
    model = adapt(tiny_lm(), "lora", spec)
    with routing_of_forwards(model, spec) as channel:
        counts = [sample.tokens for sample in split_gradients(model, channel, "default", batch, 3)]
    assert counts == [[9, 2, 0], [9, 0, 1], [16, 2, 1]]  # without padding


def test_the_loss_is_that_of_the_model(tiny_lm, spec, batch):
    model = adapt(tiny_lm(), "lora", spec)
    for index, loss in enumerate(answer_losses(model, batch)):
        alone = {name: value[index : index + 1] for name, value in batch.items()}
        torch.testing.assert_close(model(**alone).loss.double(), loss, rtol=1e-6, atol=0)  # the model's is in float32


def test_lora_by_its_formula(tiny_lm, spec, chat):
    """dA = s B' g x' and dB = s g (A x)', with g and x of the modality's tokens."""
    model, ids = adapt(tiny_lm(), "lora", spec), chat("vaqw", "rr")
    batch, seen = trained_on([ids], answered=2), {}
    layer = adapted_layers(model)["model.layers.0.mlp.up_proj"]

    def keep(layer, args, output):
        seen["x"] = args[0][0].detach()
        output.register_hook(lambda g: seen.update(g=g[0]))

    handle = layer.register_forward_hook(keep)
    answer_losses(model, batch).sum().backward()
    handle.remove()
    parts = split(model, spec, batch)[0]["model.layers.0.mlp.up_proj"]
    A, B = layer.lora_A["default"].weight, layer.lora_B["default"].weight
    text = [t for t in range(ids.shape[1]) if ids[0, t] not in (50, 60)]
    for number, tokens in enumerate([text, [3], [4]]):
        x, g = seen["x"][tokens], seen["g"][tokens]
        torch.testing.assert_close(parts["lora_A"][number], 2 * B.T @ g.T @ x, rtol=1e-9, atol=1e-13)
        torch.testing.assert_close(parts["lora_B"][number], 2 * g.T @ (x @ A.T), rtol=1e-9, atol=1e-13)


def test_matrices_of_one_modality_get_nothing_from_others(tiny_lm, spec, batch):
    found = split(adapt(tiny_lm(), "moka", spec), spec, batch)[2]["model.layers.0.self_attn.v_proj"]
    for number, modality in enumerate(["text", "visual", "audio"]):
        norms = found[f"moka_A_{modality}"].flatten(1).norm(dim=1)
        assert norms[number] > 0
    assert not found["moka_A_visual"][[0, 2]].any() and not found["moka_A_audio"][[0, 1]].any()
    assert found["moka_A_text"].flatten(1).any(1).all()  # media attend to the instruction's z


@pytest.mark.parametrize("method", ["lora", "moka"])
def test_a_frozen_adapter_stays_so(tiny_lm, spec, batch, method):
    model = adapt(tiny_lm(), method, spec)
    expected = split(model, spec, batch)
    model.requires_grad_(False)
    with torch.no_grad():
        found = split(model, spec, batch)
    torch.testing.assert_close(found, expected, rtol=0, atol=0)
    assert not any(weight.requires_grad or weight.grad is not None for weight in model.parameters())
    assert not any(layer._forward_hooks for layer in adapted_layers(model).values())
