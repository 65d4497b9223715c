"""Gradient and Fisher information of an adapter's matrices by modality, summed over samples and told as data."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor


class Sums:
    """Over samples, of one matrix: squared gradient by modality and, last, of all but text; its norm by modality."""

    def __init__(self, like: Tensor) -> None:
        modalities, *shape = like.shape
        self.squares = like.new_zeros(modalities + 1, *shape, dtype=torch.float64)
        self.norms = like.new_zeros(modalities, dtype=torch.float64)

    def add(self, gradient: Tensor) -> None:
        """gradient: one sample's, [modalities, *shape of the matrix]."""
        gradient = gradient.double()
        self.squares[:-1] += gradient.square()
        self.squares[-1] += gradient[1:].sum(0).square()
        self.norms += gradient.flatten(1).norm(dim=1)


@dataclass
class AllSums:
    """Over samples: how many tokens of each modality they have, and layer -> matrix -> its sums."""

    tokens: list[int]
    layers: dict[str, dict[str, Sums]] = field(default_factory=dict)

    def add(self, tokens: Sequence[int], layers: Mapping[str, Mapping[str, Tensor]]) -> None:
        """layers: one sample's gradients, layer -> matrix -> [modalities, *shape of the matrix]."""
        self.tokens = [have + new for have, new in zip(self.tokens, tokens, strict=True)]
        for layer, gradients in layers.items():
            sums = self.layers.setdefault(layer, {})
            for name, gradient in gradients.items():
                if name not in sums:
                    sums[name] = Sums(gradient)
                sums[name].add(gradient)

    def describe(self, modalities: Sequence[str], samples: int) -> list[dict[str, Any]]:
        """One entry per layer, as JSON data."""
        return [
            {"layer": layer, "matrices": {m: describe_matrix(m, s, modalities, samples) for m, s in matrices.items()}}
            for layer, matrices in self.layers.items()
        ]


def describe_matrix(name: str, sums: Sums, modalities: Sequence[str], samples: int) -> dict[str, Any]:
    """What the sums over so many samples say of the matrix, as JSON data."""
    fisher = sums.squares / samples
    exceeds = fisher[-1] > fisher[0]
    information = dict(zip(modalities, fisher[:-1].flatten(1).sum(1).tolist(), strict=True))
    norms = dict(zip(modalities, (sums.norms / samples).tolist(), strict=True))
    return {
        "shared": is_shared(name, modalities),
        "elements": exceeds.numel(),
        "non_text_dominant": int(exceeds.sum()),
        "dominance": float(exceeds.double().mean()),
        "gradient_norm": norms,
        "gradient_share": shares(norms),
        "fisher": information,
        "fisher_share": shares(information),
    }


def is_shared(matrix: str, modalities: Sequence[str]) -> bool:
    """Whether the tokens of all modalities go through a matrix of this name: `moka_A_visual` is one modality's."""
    return not any(matrix in (f"moka_A_{modality}", f"moka_B_{modality}") for modality in modalities)


def shares(values: Mapping[str, float]) -> dict[str, float]:
    """The values as shares of their sum; all zero where that is."""
    total = sum(values.values())
    return {name: value / total if total else 0.0 for name, value in values.items()}


def kind_of(matrix: str) -> str:
    """What a matrix is told under over all layers: the experts of a mixture, `moka_A_0` and so on, are one kind."""
    return re.sub(r"_\d+$", "", matrix)


def overall_dominance(layers: Sequence[Mapping[str, Any]]) -> dict[str, float]:
    """Kind of shared matrix -> share of its elements, over all layers, where non-text dominates."""
    counts: dict[str, list[int]] = {}
    for layer in layers:
        for name, matrix in layer["matrices"].items():
            if matrix["shared"]:
                count = counts.setdefault(kind_of(name), [0, 0])
                count[0] += matrix["non_text_dominant"]
                count[1] += matrix["elements"]
    return {name: dominant / elements for name, (dominant, elements) in counts.items()}


def overall_shares(layers: Sequence[Mapping[str, Any]]) -> dict[str, dict[str, float]]:
    """Kind of matrix -> share of each modality in its Fisher information over all layers."""
    sums: dict[str, dict[str, float]] = {}
    for layer in layers:
        for name, matrix in layer["matrices"].items():
            of_matrix = sums.setdefault(kind_of(name), dict.fromkeys(matrix["fisher"], 0.0))
            for modality, value in matrix["fisher"].items():
                of_matrix[modality] += value
    return {name: shares(values) for name, values in sums.items()}
