"""Several adapters on one model: each reads its own routing, and the input is read once per distinct spec."""

from __future__ import annotations

import copy
from dataclasses import replace

import pytest
import torch
from peft import get_peft_model
from torch import nn

from moka_peft import MokaConfig, Routing, RoutingSpec, route
from moka_peft.ops import moka_delta
from moka_peft.routing.scan import route_if_media

ORDERS = {"seen": ("text", "visual", "audio"), "heard": ("text", "audio", "visual"), "third": ("text", "visual")}


@pytest.fixture
def model_with(tiny_lm, spec, randomise):
    """model_with(name={config overrides}, ...) -> a PeftModel with these adapters, all random, the first active."""

    def build(**adapters):
        model = None
        for name, overrides in adapters.items():
            config = MokaConfig(**{"r": 3, "modalities": ORDERS[name], "routing": spec, **overrides})
            if model is None:
                model = get_peft_model(tiny_lm(), config, adapter_name=name)
            else:
                model.add_adapter(name, config)
        randomise(model)
        return model.eval()

    return build


@pytest.fixture
def randomise():
    """Weights of an adapter by its name and place, so that two models with the same adapter agree."""

    def fill(model):
        for name, parameter in model.named_parameters():
            if ".moka_" in name:
                generator = torch.Generator().manual_seed(sum(name.encode()))
                parameter.data = torch.randn(parameter.shape, generator=generator) * 0.3

    return fill


@pytest.fixture
def count_routes(monkeypatch):
    """The specs that the hook has routed by, in order."""
    specs = []

    def counted(ids, spec, *args, **kwargs):
        specs.append(spec)
        return route_if_media(ids, spec, *args, **kwargs)

    monkeypatch.setattr("moka_peft.tuner.reading.route_if_media", counted)
    return specs


def test_equal_specs_are_routed_once(model_with, spec, chat, count_routes):
    other = replace(spec, skip=(90,))
    twin = RoutingSpec.from_dict(spec.to_dict())
    model = model_with(seen={}, heard={"routing": twin}, third={"routing": other})
    ids = chat("vvxyz", "pp")
    model(ids)
    assert count_routes == [spec]  # only the active adapter's
    count_routes.clear()
    model.base_model.set_adapter(["seen", "heard", "third"])
    model(ids)
    assert count_routes == [spec, other]


def test_switching_equals_a_model_with_that_adapter_alone(model_with, spec, chat):
    shorter = replace(spec, skip=(26,))  # "x" is no instruction for this adapter
    adapters = {"seen": {}, "heard": {"interaction": "mean"}, "third": {"routing": shorter, "r": 2}}
    together = model_with(**adapters)
    ids = chat("vvxyz", "pp")
    for name, overrides in adapters.items():
        together.set_adapter(name)
        assert torch.equal(together(ids).logits, model_with(**{name: overrides})(ids).logits), name


class OneLinear(nn.Module):
    """An embedding and the one Linear that carries the adapters."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.embed = nn.Embedding(100, 16)
        self.proj = nn.Linear(16, 12)

    def forward(self, input_ids, attention_mask=None):
        return self.proj(self.embed(input_ids))


def test_active_together_add_up_each_with_its_own_spec(spec, chat, randomise):
    specs = {"seen": spec, "heard": replace(spec, skip=(26,)), "third": replace(spec, user_close=((5,),))}
    model = None
    for name, own in specs.items():
        config = MokaConfig(r=3, modalities=ORDERS[name], routing=own, target_modules=["proj"])
        if model is None:
            model = get_peft_model(OneLinear(), config, adapter_name=name)
        else:
            model.add_adapter(name, config)
    randomise(model)
    model.base_model.set_adapter(list(specs))
    ids = torch.cat([chat("vvxyz", "pp"), chat("xyvwz", "mm")])
    layer = model.base_model.model.proj
    x = model.base_model.model.embed(ids)
    expected, deltas = layer.base_layer(x), []
    for name, own in specs.items():
        A = torch.stack([getattr(layer, f"moka_A_{modality}")[name].weight for modality in ORDERS[name]])
        routing = by_names(route(ids, own), ORDERS[name])
        deltas.append(moka_delta(x, A, layer.moka_B[name].weight, routing, scaling=8 / 3, cross_scale=1.0))
        expected = expected + deltas[-1]
    torch.testing.assert_close(model(ids), expected)
    assert not torch.allclose(deltas[0], deltas[1]) and not torch.allclose(deltas[0], deltas[2])


def by_names(routing, modalities):
    """The routing's integers in the order of `modalities`, by a table."""
    table = torch.tensor([modalities.index(name) if name in modalities else -9 for name in routing.modalities])
    return Routing(table[routing.modality], routing.turn, modalities)


def test_an_adapters_own_guard_holds_when_others_are_active(model_with, spec, chat):
    model = model_with(seen={"interaction": "none"}, heard={}).train()
    ids = chat("vvxyz", "pp")
    model(ids, labels=ids)
    model.base_model.set_adapter(["seen", "heard"])
    with pytest.raises(ValueError, match="3 instruction tokens carry loss"):
        model(ids, labels=ids)


def test_adapters_load_beside_each_other(model_with, tiny_lm, spec, chat, tmp_path):
    from peft import PeftModel

    model = model_with(seen={}, heard={"interaction": "mean"})
    model.save_pretrained(tmp_path)
    ids = chat("vvxyz", "pp")
    loaded = PeftModel.from_pretrained(tiny_lm(), tmp_path / "seen", adapter_name="seen")
    loaded.load_adapter(tmp_path / "heard", adapter_name="heard")
    for active in (["seen"], ["heard"], ["seen", "heard"]):
        model.base_model.set_adapter(active)
        loaded.base_model.set_adapter(active)
        assert torch.equal(loaded.eval()(ids).logits, model(ids).logits)


def test_copies_count_their_own_routes(model_with, chat, count_routes):
    model = copy.deepcopy(model_with(seen={}, heard={}))
    model.base_model.set_adapter(["seen", "heard"])
    model(chat("vvxyz", "pp"))
    assert len(count_routes) == 1


def test_an_adapter_merged_in_other_layers_than_the_active_one(model_with, chat):
    model = model_with(seen={"target_modules": ["q_proj"]}, heard={"target_modules": ["v_proj"]})
    ids = chat("vxq", "r")
    model.base_model.set_adapter(["seen", "heard"])
    expected = model(ids).logits
    model.base_model.set_adapter("seen")
    model.merge_adapter(["heard"])
    torch.testing.assert_close(model(ids).logits, expected)


def test_adapters_row_by_row_are_refused(model_with, chat):
    model = model_with(seen={}, heard={})
    with pytest.raises(ValueError, match="adapter_names"):
        model(chat("vxq", "r"), adapter_names=["seen"])
    with pytest.raises(ValueError, match="adapter_names"):
        model.generate(chat("vxq", "r"), adapter_names=["__base__"], max_new_tokens=1)


def test_checkpointing_where_another_adapter_adapts_other_layers(model_with, chat):
    ids = chat("vxq", "r")
    gradients = []
    for checkpointed in (False, True):
        model = model_with(seen={"layers_to_transform": [0]}, heard={"layers_to_transform": [1]}).train()
        model.set_adapter("heard")
        if checkpointed:
            model.enable_input_require_grads()
            base = model.get_base_model()
            getattr(base, "activation_checkpointing_enable", base.gradient_checkpointing_enable)()
        model(ids).logits[:, -1].square().sum().backward()
        gradients.append([p.grad for p in model.parameters() if p.requires_grad])
    assert gradients[0]
    for plain, recomputed in zip(*gradients, strict=True):
        torch.testing.assert_close(recomputed, plain)
