"""How often the hook waits for the device in a training forward."""

from __future__ import annotations

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from moka_peft import Routing, route
from moka_peft.tuner import channel_of
from moka_peft.tuner.hook import _open

WAITING = ("_local_scalar_dense", "equal", "nonzero", "masked_select", "_unique2", "unique_consecutive", "bincount")


class OnHost(torch.Tensor):
    """Stands for a copy on the host, where the model itself is there: what is made from it is there too."""


class Waits(TorchDispatchMode):
    """Counts operators whose result the host needs of tensors that stand for the device's, and copies to the host."""

    def __init__(self, monkeypatch):
        super().__init__()
        self.count = 0
        monkeypatch.setattr(Routing, "on_host", lambda routing, *others: self.copy(routing, *others))

    def copy(self, routing, *others):
        known = routing._derived.get("test host", ())
        if others or not known:
            self.count += 1
            known = routing._derived["test host"] = tuple(
                tensor.as_subclass(OnHost) for tensor in (routing.modality, routing.turn)
            )
        return *known, *(other.as_subclass(OnHost) for other in others)

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        is_mask = func is torch.ops.aten.index.Tensor and any(t is not None and t.dtype == torch.bool for t in args[1])
        waits = func.overloadpacket.__name__ in WAITING or is_mask
        self.count += waits and not any(isinstance(arg, OnHost) for arg in args)
        return func(*args, **(kwargs or {}))


@pytest.mark.parametrize(
    ("turn", "labelled", "options", "most"),
    [
        ("vvxyz", True, {}, 2),
        ("vvxyz", True, {"supervised_instruction": "ignore"}, 2),
        ("vvxyz", False, {}, 2),
        ("vvxyz", True, {"interaction": "text_query"}, 2),
        ("xyz", True, {}, 1),
        ("xyz", False, {}, 1),
    ],
)
def test_a_training_forward_waits_at_most_twice(adapted, chat, monkeypatch, turn, labelled, options, most):
    model, ids = adapted(**options).train(), chat(turn, "pp")
    labels = {"labels": ids.masked_fill(torch.arange(ids.shape[1]) < ids.shape[1] - 3, -100)} if labelled else {}
    root = model.get_base_model()
    with Waits(monkeypatch) as waits:
        _open(channel_of(model), root, (), {"input_ids": ids, "attention_mask": torch.ones_like(ids), **labels})
    assert 0 < waits.count <= most


def test_given_routing_is_copied_once(adapted, spec, chat, monkeypatch):
    model, ids = adapted().train(), chat("vvxyz", "pp")
    read = route(ids, spec)
    with Waits(monkeypatch) as waits:
        given = {"moka_modality": read.modality, "moka_turn": read.turn}
        _open(channel_of(model), model.get_base_model(), (), {"input_ids": ids, **given})
    assert waits.count == 1
