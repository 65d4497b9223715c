"""IMoD (Implicit Modality Decomposition, CVPR 2026): LoRA whose A learns from two constraints besides the task.

A's elements are dealt out at random to text, to the other modalities, and to both (`imod_parts`); the constraints ask
that a token need not the elements of the other kind, and that the shared ones bring text and media to one direction
(`imod_constraints`). The forward is LoRA's, so that the adapter merges.

Written from public notes on the paper, not from its code. They give the formulas, a = 0.4, l1 = 1 and l2 = 1e-4.
Assumed here:
- r_s(0), `shared_share`, is 1/3: their ablation without the schedule splits A into equal parts. What is not shared is
  halved between text and the others; l counts decoder layers from 0, so that the last has r_s(0) + a (L - 1) / L.
- ||.||^2 is a sum over the rank and a mean over the tokens of its kind, then over the sequences of a batch that hold
  such tokens: the constraints do not grow with the batch or the length. L in the mean of c is the number of those
  tokens. A sequence without media or without text takes no part in the alignment; padding in nothing.
- x in the constraints is the layer's input after dropout, and no gradient flows into it.
- Every backward pass adds the constraints' gradient whole: with accumulated micro-batches once for each of them.

Read so, l1 = 1 is strong: in recipes/quickstart.yaml the decoupling's gradient on A is 40 times the task's at step 5
and 3 times at step 39.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from moka_peft.baselines.auxiliary import with_loss
from moka_peft.baselines.imod_constraints import constraint
from moka_peft.baselines.imod_parts import draw_parts, shared_share_at
from moka_peft.baselines.rival import RivalConfig, RivalLinear, RivalModel, RivalPeftType
from moka_peft.routing import Routing
from moka_peft.tuner.channel import RoutingChannel
from moka_peft.tuner.config import accept_lora_keywords


@accept_lora_keywords
@dataclass
class ImodConfig(RivalConfig):
    """LoRA's keywords, `modalities`, and IMoD's.

    `shared_share`, `shared_growth`: r_s(0) and a of the share of A that is shared, r_s(0) + a l / L in layer l of L.
    `decoupling_weight`, `alignment_weight`: l1 and l2 of the constraints. `mask_seed`: for the draw of the elements.
    """

    kind = RivalPeftType.IMOD
    shared_share: float = 1 / 3
    shared_growth: float = 0.4
    decoupling_weight: float = 1.0
    alignment_weight: float = 1e-4
    mask_seed: int = 0

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in ("shared_share", "shared_growth", "decoupling_weight", "alignment_weight"):
            value = getattr(self, name)
            if not isinstance(value, int | float) or not math.isfinite(value) or value < 0:
                raise ValueError(f"`{name}`: expected a finite number >= 0, got {value!r}.")
        if self.shared_share + self.shared_growth > 1:
            raise ValueError(
                "`shared_growth`: expected at most 1 - shared_share, as no more than all of A can be shared, got "
                f"{self.shared_growth!r} with shared_share={self.shared_share!r}."
            )
        if not isinstance(self.mask_seed, int) or isinstance(self.mask_seed, bool) or self.mask_seed < 0:
            raise ValueError(f"`mask_seed`: expected an integer >= 0, got {self.mask_seed!r}.")


@dataclass(frozen=True)
class ImodOptions:
    """What a layer knows of its adapter: `shared_share` is that of its depth."""

    modalities: tuple[str, ...]
    shared_share: float
    mask_seed: int
    weights: dict[str, float]
    interaction: str = "none"
    impl: str = "eager"


class ImodLinear(RivalLinear):
    """s B A x, and for training the constraints' gradient on A, the matrix `moka_A`. B `moka_B` gets none of it."""

    def __init__(self, base_layer: nn.Linear, channel: RoutingChannel, name: str) -> None:
        super().__init__(base_layer, channel, name)
        self._parts: dict[Any, Tensor] = {}  # no buffers: the seed is enough to draw them again

    def factor_sizes(self, options: Any, r: int) -> dict[str, tuple[int, int]]:
        return {"moka_A": (self.in_features, r), "moka_B": (r, self.out_features)}

    def update(self, adapter: str, x: Tensor, routing: Routing) -> Tensor:
        A, B = self.factor("moka_A", adapter, x), self.factor("moka_B", adapter, x)
        y = F.linear(F.linear(x, A) * self.scaling[adapter], B)
        weights = self.options[adapter].weights
        if not (self.training and torch.is_grad_enabled() and A.requires_grad and any(weights.values())):
            return y
        loss = constraint(A, self.parts(adapter), x.detach(), routing, **weights)
        return with_loss(y, loss)

    def parts(self, adapter: str) -> Tensor:
        """[r, I] int8: whose every element of A is, see `imod_parts`; drawn when it is first asked for."""
        options, A = self.options[adapter], self._weight("moka_A", adapter)
        key = (options.mask_seed, options.shared_share, A.shape)  # an adapter may be replaced by one of its name
        if key not in self._parts:
            self._parts[key] = draw_parts(self.name, *key)
        self._parts[key] = self._parts[key].to(A.device)
        return self._parts[key]

    def is_one_weight(self, adapter: str) -> bool:
        return True

    def text_update(self, adapter: str) -> Tensor:
        return self.product(adapter, "moka_A", "moka_B")


class ImodModel(RivalModel):
    tuner_layer_cls = ImodLinear

    def _options(self, config: Any, key: str) -> ImodOptions:
        return ImodOptions(
            modalities=tuple(config.modalities),
            shared_share=shared_share_at(key, self._adaptable, start=config.shared_share, growth=config.shared_growth),
            mask_seed=config.mask_seed,
            weights={"decoupling": config.decoupling_weight, "alignment": config.alignment_weight},
        )
