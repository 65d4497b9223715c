"""How alike the A matrices of the modalities are: principal angles between the spaces that they read from the input."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from itertools import combinations
from typing import Any

import torch
from torch import Tensor

from moka_peft.analysis.adapted_layers import active_adapter, adapted_layers, describe_adapter
from moka_peft.analysis.layer_names import place_of
from moka_peft.analysis.subspace_picture import draw_subspaces
from moka_peft.tuner import MokaLinear
from moka_peft.tuner.offload import weight_of

__all__ = ["check_has_modality_A", "draw_subspaces", "measure_subspaces", "principal_cosines", "random_cosine"]

DRAWS, SEED = 200, 0  # of pairs of random subspaces


def check_has_modality_A(model: Any) -> None:
    """Raises ValueError where the modalities have no A of their own."""
    adapter, told = active_adapter(model), describe_adapter(model)
    for layer in adapted_layers(model).values():
        if len(_modality_weights(layer, adapter, "moka_A")) < 2:
            raise ValueError(
                f"`model`: its adapter ({told['type']}) has no A of its own for each modality: expected "
                "MokA or a rival that has, such as uni_modal_lora. Choose another analysis."
            )


def measure_subspaces(model: Any) -> dict[str, Any]:
    """The cosines of the principal angles between the row spaces of every two modalities' A, as JSON data.

    `layers` holds one entry per layer, projection and pair: `cosines` from the largest on, `mean`, and for random
    subspaces of the same sizes `random_mean` and its `random_deviation`. `outputs`: the same for the column spaces of
    B, where each modality has its own. 0: perpendicular spaces, 1: the same. Raises ValueError where the modalities
    share one A.
    """
    check_has_modality_A(model)
    adapter, inputs, outputs = active_adapter(model), [], []
    for name, layer in adapted_layers(model).items():
        A, B = (_modality_weights(layer, adapter, kind) for kind in ("moka_A", "moka_B"))
        inputs += [_compared(name, pair, A) for pair in combinations(A, 2)]
        outputs += [_compared(name, pair, {m: b.T for m, b in B.items()}) for pair in combinations(B, 2)]
    return {"adapter": describe_adapter(model), "layers": inputs, "outputs": outputs}


def principal_cosines(A: Tensor, other: Tensor) -> Tensor:
    """The cosines of the principal angles between two row spaces, from the largest on. A and other: [r, I] float64."""
    return torch.linalg.svdvals(_basis(A).T @ _basis(other)).clamp(max=1)


@cache
def random_cosine(inputs: int, r: int, other: int) -> tuple[float, float]:
    """Mean and standard deviation of the mean cosine of two random subspaces of `inputs` dimensions, drawn `DRAWS`
    times; the mean of the squared cosines is known, max(r, other) / inputs."""
    generator = torch.Generator().manual_seed(SEED)
    means = []
    for _ in range(DRAWS):
        basis = torch.linalg.qr(torch.randn(inputs, r, generator=generator, dtype=torch.float64)).Q
        means.append(torch.linalg.svdvals(basis[:other]).mean())  # against the first axes: any other subspace is alike
    drawn = torch.stack(means)
    return float(drawn.mean()), float(drawn.std())


def _basis(A: Tensor) -> Tensor:
    """An orthonormal basis [I, rank] of the row space of A."""
    _, sizes, rows = torch.linalg.svd(A, full_matrices=False)
    return rows[sizes > sizes.max() * max(A.shape) * torch.finfo(A.dtype).eps].T


def _modality_weights(layer: Any, adapter: str, kind: str) -> dict[str, Tensor]:
    """modality -> its own matrix in float64, of the adapter's `moka_A_<modality>` or `moka_B_<modality>`."""
    if not isinstance(layer, MokaLinear):
        return {}
    own = {name: layer._modules.get(f"{kind}_{name}") for name in layer.options[adapter].modalities}
    return {
        name: weight_of(modules[adapter]).detach().to("cpu", torch.float64)  # pyright: ignore
        for name, modules in own.items()
        if modules is not None
    }


def _compared(name: str, pair: tuple[str, str], matrices: Mapping[str, Tensor]) -> dict[str, Any]:
    number, projection = place_of(name)
    one, other = (matrices[modality] for modality in pair)
    cosines = principal_cosines(one, other)
    mean, deviation = random_cosine(one.shape[1], one.shape[0], other.shape[0])
    return {
        "layer": number,
        "projection": projection,
        "name": name,
        "pair": list(pair),
        "cosines": [round(value, 6) for value in cosines.tolist()],
        "mean": float(cosines.mean()) if len(cosines) else 0.0,
        "random_mean": mean,
        "random_deviation": deviation,
    }
