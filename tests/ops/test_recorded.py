"""The delta against recorded values: our own, and the authors' layers where their vectors lie beside the checkout."""

import json
from pathlib import Path

import pytest
import torch
from peft import get_peft_model
from safetensors import safe_open
from safetensors.torch import load_file
from torch import nn

from moka_peft import MokaConfig, Routing
from moka_peft.ops import moka_delta

RECORDED = Path(__file__).with_name("recorded_delta.safetensors")
with safe_open(RECORDED, "pt") as file:
    FORMS = json.loads(file.metadata()["forms"])
TOLERANCE = {torch.float64: 1e-10, torch.float32: 2e-5}
CASES = [
    "avt_train_leftpad",
    "avt_test_rightpad_bias",
    "avt_noncontiguous_question",
    "avt_decode",
    "vt_rightpad_noimage",
    "vt_leftpad_interleaved_bias",
]


def assert_near(got: dict, expected: dict, dtype: torch.dtype) -> None:
    for name, value in got.items():
        bound = TOLERANCE[dtype] * max(1.0, expected[name].abs().max().item())
        assert (value.double() - expected[name]).abs().max().item() <= bound, name


@pytest.mark.parametrize("impl", ["reference", "eager"])
@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("layout", range(3))
def test_own_recording(layout, form, impl):
    tensors = load_file(RECORDED)
    given = {n: tensors[f"{layout}.{n}"] for n in ("modality", "turn", "x", "A", "B", "g")}
    expected = {n: tensors[f"{layout}.{form}.{n}"] for n in ("y", "grad_x", "grad_A", "grad_B")}
    for dtype in TOLERANCE:
        x, A, B = (given[n].to(dtype).clone().requires_grad_() for n in "xAB")
        y = moka_delta(x, A, B, Routing(given["modality"], given["turn"]), impl=impl, **FORMS[form])
        (y * given["g"].to(dtype)).sum().backward()
        assert_near({"y": y, "grad_x": x.grad, "grad_A": A.grad, "grad_B": B.grad}, expected, dtype)


class Recording:
    """One recorded layer of the authors: its tensors, names and options."""

    def __init__(self, folder: Path, name: str) -> None:
        index = json.loads((folder / "index.json").read_text())
        self.facts = next(case for case in index["cases"] if case["name"] == name)
        self.tensors = load_file(folder / self.facts["file"])
        self.kinds = [k for k in ("text", "vision", "audio") if f"lora_A_{k}" in self.tensors]
        self.is_avt = self.facts["variant"] == "avt"
        self.expected = {n: t for n, t in self.tensors.items() if n == "y" or (n[:5] == "grad_" and n[-4:] != "_f32")}

    def routing(self) -> Routing:
        modality = self.tensors["modality_ids"]
        if not self.facts["masks_passed"]:
            modality = torch.zeros_like(modality)
        turn = ((modality > 0) | (self.tensors["question_mask"] > 0)).long()
        return Routing(modality, turn)

    def options(self) -> dict:
        span = "contiguous" if self.is_avt else "tokens"
        return {"cross_scale": self.facts["lam"], "scale_before_attention": self.is_avt, "instruction_span": span}

    def get(self, name: str, dtype: torch.dtype) -> torch.Tensor:
        return self.tensors[name].to(dtype).clone()


@pytest.mark.parametrize("dtype", TOLERANCE, ids=str)
@pytest.mark.parametrize("impl", ["reference", "eager"])
@pytest.mark.parametrize("name", CASES)
def test_authors_layer_through_moka_delta(golden, name, impl, dtype):
    case = Recording(golden, name)
    x, B = (case.get(n, dtype).requires_grad_() for n in ("x", "lora_B"))
    A = torch.stack([case.get(f"lora_A_{k}", dtype) for k in case.kinds]).requires_grad_()
    delta = moka_delta(x, A, B, case.routing(), scaling=case.facts["scaling"], impl=impl, **case.options())
    bias = case.get("bias", dtype) if case.facts["has_bias"] else None
    y = nn.functional.linear(x, case.get("weight", dtype), bias) + delta
    (y * case.get("g", dtype)).sum().backward()
    gradients = {f"grad_lora_A_{k}": A.grad[i] for i, k in enumerate(case.kinds)}
    assert_near({"y": y, "grad_x": x.grad, "grad_lora_B": B.grad, **gradients}, case.expected, dtype)


@pytest.mark.parametrize("dtype", TOLERANCE, ids=str)
@pytest.mark.parametrize("impl", ["reference", "eager"])
@pytest.mark.parametrize("name", CASES)
def test_authors_layer_through_an_adapted_linear(golden, name, impl, dtype):
    case = Recording(golden, name)
    facts = case.facts
    base = nn.Sequential()
    base.proj = nn.Linear(facts["in_features"], facts["out_features"], bias=facts["has_bias"], dtype=dtype)
    base.proj.weight.data = case.get("weight", dtype)
    if facts["has_bias"]:
        base.proj.bias.data = case.get("bias", dtype)
    names = {"text": "text", "vision": "visual", "audio": "audio"}
    modalities = [names[k] for k in case.kinds]
    config = MokaConfig(
        r=facts["r"],
        lora_alpha=facts["lora_alpha"],
        target_modules=["proj"],
        modalities=modalities,
        impl=impl,
        **case.options(),
    )
    model = get_peft_model(base, config)
    parameters = dict(model.named_parameters())
    prefix = "base_model.model.proj."
    A = [parameters[f"{prefix}moka_A_{m}.default.weight"] for m in modalities]
    B = parameters[f"{prefix}moka_B.default.weight"]
    for parameter, kind in zip(A, case.kinds, strict=True):
        parameter.data = case.get(f"lora_A_{kind}", dtype)
    B.data = case.get("lora_B", dtype)
    x = case.get("x", dtype).requires_grad_()
    y = model(x, routing=case.routing())
    (y * case.get("g", dtype)).sum().backward()
    gradients = {f"grad_lora_A_{k}": parameter.grad for parameter, k in zip(A, case.kinds, strict=True)}
    assert_near({"y": y, "grad_x": x.grad, "grad_lora_B": B.grad, **gradients}, case.expected, dtype)
