"""Records inputs, outputs and gradients of the reference delta, in float64, for tests/ops/recorded_delta.safetensors.

    python scripts/record_delta.py tests/ops/recorded_delta.safetensors

The file pins the maths: a change of the reference that changes a value fails the tests.
"""

import json
import sys

import torch
from safetensors.torch import save_file

from moka_peft.ops import moka_delta
from moka_peft.routing import Routing

LAYOUTS = [  # one string per sample: . padding, t text, i instruction, v visual, a audio; one turn
    ["ttvvvtaatiiitt", "....tvvttiiitt", "..taaatiitiitt"],
    ["vvtaavviitt", "tviivvtaa..", "ttiitt....."],
    ["iivvtitvv", "..vvtttaa"],
]
FORMS = {
    "tokens": {"scaling": 4.0, "cross_scale": 0.05},
    "contiguous": {
        "scaling": 2.5,
        "cross_scale": 1.0,
        "scale_before_attention": True,
        "instruction_span": "contiguous",
    },
    "mean": {"scaling": 2.0, "cross_scale": [0.5, 1.5], "interaction": "mean"},
    "text_query": {"scaling": 2.0, "cross_scale": [0.5, 1.5], "interaction": "text_query"},
    "none": {"scaling": 2.0, "cross_scale": 1.0, "interaction": "none"},
}


def read_layout(rows: list[str]) -> Routing:
    modality = torch.tensor([[{".": -1, "v": 1, "a": 2}.get(c, 0) for c in row] for row in rows])
    turn = torch.tensor([[int(c in "iva") for c in row] for row in rows])
    return Routing(modality, turn, ("text", "visual", "audio"))


def main(path: str) -> None:
    generator = torch.Generator().manual_seed(20)
    tensors = {}
    for index, rows in enumerate(LAYOUTS):
        routing = read_layout(rows)
        x, A, B, g = (
            torch.randn(*shape, generator=generator, dtype=torch.float64)
            for shape in ((*routing.shape, 7), (3, 4, 7), (6, 4), (*routing.shape, 6))
        )
        given = {"modality": routing.modality, "turn": routing.turn, "x": x, "A": A, "B": B, "g": g}
        tensors |= {f"{index}.{name}": tensor.clone() for name, tensor in given.items()}
        for form, options in FORMS.items():
            leaves = [t.clone().requires_grad_() for t in (x, A, B)]
            y = moka_delta(*leaves, routing, impl="reference", **options)
            gradients = torch.autograd.grad((y * g).sum(), leaves)
            tensors[f"{index}.{form}.y"] = y.detach()
            for name, gradient in zip(("x", "A", "B"), gradients, strict=True):
                tensors[f"{index}.{form}.grad_{name}"] = gradient
    save_file(tensors, path, metadata={"forms": json.dumps(FORMS)})


if __name__ == "__main__":
    main(sys.argv[1])
