"""An adapted model in bfloat16, on a GPU, against itself in float32 on the CPU."""

from __future__ import annotations

import copy

import pytest
import torch
from peft import PeftModel
from torch import Tensor

from moka_peft.tuner import MokaLinear

from .behaviours import on, two_forwards
from .case import Case
from .zoo import FAMILIES

ROWS = ["xiy|pp|qviz", "qw", "zv"]
SMALL_FACTOR = 4
DEVICES = ["cpu", pytest.param("cuda", marks=pytest.mark.gpu)]


@pytest.fixture(scope="module")
def case():
    return Case(FAMILIES["qwen2_5_vl"])


def in_bfloat16(model: PeftModel, device: str) -> PeftModel:
    """A copy on `device` with its adapter in float32, as PEFT keeps it."""
    model = copy.deepcopy(model).to(device, torch.bfloat16)
    for layer in (module for module in model.modules() if isinstance(module, MokaLinear)):
        for name in layer.adapter_layer_names:
            getattr(layer, name).float()
    return model


def logits(case: Case, model: PeftModel) -> Tensor:
    """[tokens, V] of all rows, without padding."""
    inputs = on(model.device, case.family.inputs(ROWS, padding_side="left"))
    with torch.no_grad():
        return model(**inputs).logits[inputs["attention_mask"].bool()].float().cpu()


def distance(found: Tensor, expected: Tensor) -> float:
    return float((found - expected).norm() / expected.norm())


@pytest.mark.parametrize("merged", [False, True])
@pytest.mark.parametrize("device", DEVICES)
def test_the_adapter_adds_no_more_error_than_the_base_has(case, device, merged):
    expected = case.adapted()
    found = in_bfloat16(expected, device)
    with expected.disable_adapter(), found.disable_adapter():
        base = logits(case, expected)
        rounding = distance(logits(case, found), base)
    if merged:
        found.merge_adapter()
    wanted = logits(case, expected)
    assert distance(base, wanted) > 10 * SMALL_FACTOR * rounding  # otherwise a wrong delta would pass
    assert distance(logits(case, found), wanted) <= SMALL_FACTOR * rounding


@pytest.mark.parametrize("device", DEVICES)
def test_gradients_of_two_checkpointed_forwards(case, device):
    expected = two_forwards(case, case.adapted(), None)
    rounded = two_forwards(case, in_bfloat16(case.adapted(), "cpu"), None)
    found = two_forwards(case, in_bfloat16(case.adapted(), device), False)
    assert distance(flat(found), flat(expected)) <= SMALL_FACTOR * distance(flat(rounded), flat(expected)) < 0.2


def flat(gradients: dict[str, Tensor]) -> Tensor:
    return torch.cat([gradients[name].flatten().float().cpu() for name in sorted(gradients)])
