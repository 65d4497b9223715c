"""Which elements of A IMoD counts as text's, as other modalities' and as shared: drawn once, never stored."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable

import torch
from torch import Tensor

TEXT, OTHER, SHARED = 0, 1, 2


def shared_share_at(name: str, names: Iterable[str], *, start: float, growth: float) -> float:
    """r_s(0) + a l / L for the layer called `name`: l is the number of its decoder layer, from 0, and L how many
    there are among `names`.

    Raises ValueError where the share grows and the name holds no number.
    """
    if not growth:
        return start
    index = _decoder_layer(name)
    if index is None:
        raise ValueError(
            f"`shared_growth`: the depth of {name!r} is unknown: expected the number of its decoder layer in its name, "
            "as in 'layers.3.self_attn.q_proj'. Use shared_growth=0."
        )
    return start + growth * index / (1 + max(i for i in map(_decoder_layer, names) if i is not None))


def _decoder_layer(name: str) -> int | None:
    """The first number among the name's parts; later ones count experts."""
    found = re.search(r"(?:^|\.)(\d+)(?:\.|$)", name)
    return int(found[1]) if found else None


def draw_parts(name: str, seed: int, shared_share: float, shape: torch.Size) -> Tensor:
    """[r, I] int8 on the CPU: TEXT, OTHER or SHARED for every element, which are mixed at random.

    The same for the same layer, seed, shape and share in any process. What is not shared is halved.
    """
    digest = hashlib.sha256(f"{seed} {name}".encode()).digest()  # Python's own hash differs between processes
    generator = torch.Generator("cpu").manual_seed(int.from_bytes(digest[:8], "big") // 2)
    total = shape.numel()
    shared = round(total * shared_share)
    parts = torch.full((total,), OTHER, dtype=torch.int8, device="cpu")
    parts[:shared] = SHARED
    parts[shared : shared + (total - shared) // 2] = TEXT
    return parts[torch.randperm(total, generator=generator, device="cpu")].view(shape)
