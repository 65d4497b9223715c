"""How many matrices every method has in a layer, as the table of MokA's paper counts them, and what it trains."""

import re
from collections import Counter

import pytest
from peft import get_peft_model

from moka_peft.training.methods import CONFIGS, build_config, known_settings

MODALITIES = ("text", "visual", "audio")
R, N = 2, len(MODALITIES)

MATRICES = {
    "lora": (1, 1),
    "dora": (1, 1),
    "multiple_lora": (N, N),
    "lora_moe": (N, N),
    "hydra_lora": (1, N),
    "uni_modal_lora": (N, N),
    "uni_mm_lora": (N + 1, 2),
    "uni_mm_lora_gate": (N + 1, 2),
    "imod": (1, 1),
    "moka": (N, 1),
    "moka_shared_a": (1, 1),
}
"""Numbers of A's and B's in an adapted layer (arXiv 2506.05191, table of results)."""

MORE = {
    "dora": lambda inputs, outputs: outputs,  # a magnitude per output
    "lora_moe": lambda inputs, outputs: N * inputs,  # the router
    "hydra_lora": lambda inputs, outputs: N * inputs,
    "uni_mm_lora_gate": lambda inputs, outputs: inputs,  # the gate
}
"""What trains in a layer beside its A's and B's, of its inputs and outputs."""

VARIANTS = [
    *((method, {}) for method in MATRICES),
    *(("moka", {"interaction": interaction}) for interaction in ("text_query", "mean", "none")),
]


@pytest.fixture(params=VARIANTS, ids=lambda variant: "-".join([variant[0], *variant[1].values()]))
def method_and_model(request, tiny_lm):
    method, settings = request.param
    if method not in CONFIGS:
        pytest.skip(f"{method} is not there yet")
    return method, adapted(tiny_lm(), method, **settings)


def adapted(base, method, **settings):
    routed = {"modalities": MODALITIES} if "modalities" in known_settings(method) else {}
    return get_peft_model(
        base, build_config(method, {"r": R, "target_modules": ["q_proj", "down_proj"], **settings}, **routed)
    )


def layers(model):
    """Name -> (its Linear, what trains in it: name of the parameter -> shape)."""
    return {
        name: (layer.get_base_layer(), {n: w.shape for n, w in layer.named_parameters() if w.requires_grad})
        for name, layer in model.named_modules()
        if name.endswith(("q_proj", "down_proj"))
    }


def count_matrices(trained):
    found = Counter(match[1] for name in trained if (match := re.match(r"(?:moka|lora)_([AB])", name)))
    return found["A"], found["B"]


def expected_parameters(method, linear, matrices):
    A, B = matrices
    inputs, outputs = linear.in_features, linear.out_features
    return A * R * inputs + B * outputs * R + MORE.get(method, lambda *_: 0)(inputs, outputs)


def test_every_method_is_counted():
    assert set(CONFIGS) <= set(MATRICES)


def test_numbers_of_matrices(method_and_model):
    method, model = method_and_model
    found = layers(model)
    assert len(found) == 2 * 2
    for linear, trained in found.values():
        assert count_matrices(trained) == MATRICES[method]
        for name, shape in trained.items():
            if re.match(r"(?:moka|lora)_[AB]", name):
                assert shape == ((R, linear.in_features) if "_A" in name else (linear.out_features, R)), name


def test_trainable_parameters(method_and_model):
    method, model = method_and_model
    expected = sum(expected_parameters(method, linear, MATRICES[method]) for linear, _ in layers(model).values())
    assert sum(weight.numel() for weight in model.parameters() if weight.requires_grad) == expected


@pytest.mark.parametrize(
    ("method", "matrices"), [("multiple_lora", (5, 5)), ("lora_moe", (5, 5)), ("hydra_lora", (1, 5))]
)
def test_number_of_experts(method, matrices, tiny_lm):
    for linear, trained in layers(adapted(tiny_lm(), method, num_experts=5)).values():
        assert count_matrices(trained) == matrices
        router = 0 if method == "multiple_lora" else 5 * linear.in_features
        expected = R * (matrices[0] * linear.in_features + matrices[1] * linear.out_features) + router
        assert sum(shape.numel() for shape in trained.values()) == expected
