"""Compares every kernel with `ops.eager` in float64 on a small random case: one look before impl="auto" trusts them."""

from __future__ import annotations

from types import ModuleType

import torch
from torch import Tensor

from moka_peft.ops import eager, triton
from moka_peft.ops.dropout import Dropout
from moka_peft.routing import Routing
from moka_peft.routing.blocks import blocks_of
from moka_peft.routing.plan import plan_of

ROUNDED = 4  # eps of the largest value: sums are float32, so little more than the last rounding may be lost
ATTENDED = 64  # eps of float32: an error of a score, up to 10 here, is the relative error of its exponential
WIDTH = 144  # of x and y: no multiple of a tile's, but one of 16, for which Triton compiles what real layers run
SCALING = 0.5
Inputs = dict[str, Tensor]
DROPOUT = Dropout(p=0.25, seed=2**40 + 1)
# Two rows of two turns each: padding, media with and without an instruction, other text. One has no modality 2.
MODALITY = ("..000" + "1" * 37 + "0" * 5 + "2" * 9 + "0" * 4, "000" + "1" * 37 + "0" * 16 + "....")
TURN = ("00000" + "1" * 37 + "11010" + "2" * 9 + "0200", "000" + "1" * 18 + "2" * 19 + "2" * 8 + "011101000000")


def disagreement(device: torch.device, dtype: torch.dtype, rank: int) -> str | None:
    """Which function is off, and by how much; None where all agree."""
    with torch.no_grad(), torch.autocast(device.type, enabled=False):
        inputs = _inputs(dtype, rank)
        got = _results(triton, device, {name: t.to(device) for name, t in inputs.items()}, None)
        expected = _results(eager, torch.device("cpu"), {name: t.double() for name, t in inputs.items()}, got["mask"])
    for name, right in expected.items():
        factor, kind = (ATTENDED, torch.float32) if name.startswith("attend") else (ROUNDED, dtype)
        error = (got[name].cpu().double() - right).abs().max().item()
        limit = factor * torch.finfo(kind).eps * right.abs().max().item()
        if not error <= limit:  # nor where it is nan
            return f"{name} is off by {error:.3g}, more than {limit:.3g}"
    return None


def _inputs(dtype: torch.dtype, rank: int) -> Inputs:
    tokens = sum(map(len, MODALITY))
    rows = {"x": WIDTH, "dx": WIDTH, "y": WIDTH, "g": WIDTH, "u": rank, "dz": rank}
    shapes = {name: (tokens, width) for name, width in rows.items()} | {"A": (3, rank, WIDTH), "B": (WIDTH, rank)}
    generator = torch.Generator("cpu").manual_seed(0)
    return {name: torch.randn(shape, generator=generator, device="cpu").to(dtype) for name, shape in shapes.items()}


def _results(parts: ModuleType, device: torch.device, inputs: Inputs, mask: Tensor | None) -> Inputs:
    """What the functions of `parts` give. Where `mask` is None they draw dropout's, and it is part of the result."""
    x, A, B, u = (inputs[name] for name in ("x", "A", "B", "u"))
    routing = _routing(device)
    plan = plan_of(routing, len(A))
    dz = inputs["dz"].masked_fill((plan.modality < 0).unsqueeze(1), 0)
    out = {name: inputs[name].clone() for name in ("dx", "y")}
    out["z"] = parts.project(x, A, plan, None)
    out["dA"] = torch.stack(parts.project_backward(out["dx"], dz, x, A, plan, None))
    parts.expand_(out["y"], u, B, SCALING)
    out["du"], out["dB"] = parts.expand_backward(inputs["g"], u, B, SCALING)
    dropout = DROPOUT if mask is None else None
    if mask is None:
        out["mask"] = torch.zeros_like(x)
        parts.project_backward(out["mask"], torch.full_like(dz, 1 / dz.shape[1]), x, torch.ones_like(A), plan, dropout)
    else:
        x = x * mask.to(x)
    out["z with dropout"] = parts.project(x, A, plan, dropout)
    out["dA with dropout"] = torch.stack(parts.project_backward(None, dz, x, A, plan, dropout))
    return out | _attended(parts, routing, u, inputs["dz"])


def _attended(parts: ModuleType, routing: Routing, z: Tensor, du: Tensor) -> Inputs:
    """In float32 or wider, as `Update` calls them; media's queries and text's, and zero keys."""
    z, du = (tensor.to(torch.promote_types(tensor.dtype, torch.float32)) for tensor in (z, du))
    scales = (0.7, 1.3)
    media, text = ({"contiguous": True}, {"text_query": True})
    blocks = [block for side in (media, text) for block in blocks_of(routing, scales, z.dtype, **side)]
    attended, state = parts.attend(z, blocks)
    return {"attend": attended, "attend_backward": parts.attend_backward(z, du, blocks, state)}


def _routing(device: torch.device) -> Routing:
    modality, turn = (
        torch.tensor([[-1 if letter == "." else int(letter) for letter in row] for row in rows], device=device)
        for rows in (MODALITY, TURN)
    )
    return Routing(modality, turn)
