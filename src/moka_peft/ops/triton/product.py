"""The matrix product of all kernels: float32 sums, and float32 operands multiplied as such, not as tf32."""

from __future__ import annotations

import os

import triton
import triton.language as tl

INTERPRETED = tl.constexpr(os.environ.get("TRITON_INTERPRET") == "1")


@triton.jit
def product(a, b):
    """a b in float32; both of one dtype."""
    if INTERPRETED:  # the interpreter multiplies the bits of a bfloat16; the products are exact in float32
        a = a.to(tl.float32)
        b = b.to(tl.float32)
    return tl.dot(a, b, input_precision="ieee")


@triton.jit
def plus_product(total, a, b):
    """total + a b; both of one dtype, `total` float32."""
    if INTERPRETED:
        a = a.to(tl.float32)
        b = b.to(tl.float32)
    return tl.dot(a, b, total, input_precision="ieee")
