"""The adapted layers of every method, and the routing that LoRA's model is lent."""

import pytest
import torch
from torch import nn

from moka_peft import route
from moka_peft.analysis.adapted_layers import (
    active_adapter,
    adapted_layers,
    adapter_parameters,
    check_unmerged,
    describe_adapter,
    routing_of_forwards,
)
from moka_peft.tuner.channel import ATTRIBUTE

from .adapters import METHODS, adapt, padded


@pytest.mark.parametrize("method", METHODS)
def test_all_trainable_weights_are_found(tiny_lm, spec, method):
    model = adapt(tiny_lm(), method, spec)
    layers = adapted_layers(model)
    found = [weight for layer in layers.values() for weight in adapter_parameters(layer, "default").values()]
    assert list(layers)[:2] == ["model.layers.0.self_attn.q_proj", "model.layers.0.self_attn.k_proj"]
    assert len(layers) == 2 * 7
    assert {id(weight) for weight in found} == {id(w) for w in model.parameters() if w.requires_grad}
    assert describe_adapter(model)["r"] == 3


def test_refused_models(tiny_lm, spec):
    with pytest.raises(ValueError, match="holds no adapted layer"):
        adapted_layers(tiny_lm())
    model = adapt(tiny_lm(), "lora", spec)
    layers = adapted_layers(model)
    check_unmerged("q", next(iter(layers.values())))
    model.merge_adapter()
    with pytest.raises(ValueError, match="merged into 'q'"):
        check_unmerged("q", next(iter(layers.values())))
    model.unmerge_adapter()
    model.add_adapter("second", model.peft_config["default"])
    model.base_model.set_adapter(["default", "second"])
    with pytest.raises(ValueError, match=r"one active adapter, got \['default', 'second'\]"):
        active_adapter(model)


def test_the_routing_that_lora_is_lent(tiny_lm, spec, chat):
    model = adapt(tiny_lm(), "lora", spec)
    batch = padded([chat("vvq"), chat("aqwe")], "left")
    seen = []
    with routing_of_forwards(model, spec) as channel:
        layer = adapted_layers(model)["model.layers.1.mlp.up_proj"]
        layer.register_forward_hook(lambda *_: seen.append(channel.current.routings["default"].modality))
        model.generate(**batch, max_new_tokens=3, do_sample=False)
    assert torch.equal(seen[0], route(batch["input_ids"], spec, batch["attention_mask"]).modality)
    assert [modality.tolist() for modality in seen[1:]] == [[[0], [0]]] * 2


def test_the_lent_channel_goes_even_on_errors(tiny_lm, spec):
    model = adapt(tiny_lm(), "lora", spec)
    with pytest.raises(KeyError), routing_of_forwards(model, spec):
        raise KeyError
    base = model.get_base_model()
    assert ATTRIBUTE not in base.__dict__ and "generate" not in base.__dict__
    assert not base._forward_pre_hooks and not base._forward_hooks


@pytest.mark.parametrize("method", ["moka", "multiple_lora"])
def test_an_adapter_with_routing_keeps_its_channel(tiny_lm, spec, method):
    model = adapt(tiny_lm(), method, spec)
    with routing_of_forwards(model, None) as channel:
        assert channel is model.get_base_model().__dict__[ATTRIBUTE]
    assert model.get_base_model().__dict__[ATTRIBUTE] is channel


def test_parameters_of_a_router_with_a_bias():
    layer = nn.Module()
    layer.base_layer, layer.router = nn.Linear(2, 2), nn.ModuleDict({"default": nn.Linear(2, 2)})
    assert list(adapter_parameters(layer, "default")) == ["router", "router_bias"]
