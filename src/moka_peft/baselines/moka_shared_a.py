"""MokA with one A for all modalities: what its attention does alone."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

from torch import Tensor

from moka_peft.baselines.rival import RivalPeftType
from moka_peft.tuner.config import MokaConfig, accept_lora_keywords
from moka_peft.tuner.layer import MokaLinear
from moka_peft.tuner.model import MokaModel


@accept_lora_keywords
@dataclass
class MokaSharedAConfig(MokaConfig):
    """MokA's keywords, `interaction` and `cross_scale` among them."""

    kind: ClassVar[RivalPeftType] = RivalPeftType.SHARED_A

    def __post_init__(self) -> None:
        super().__post_init__()
        self.peft_type = self.kind  # pyright: ignore[reportAttributeAccessIssue]


class MokaSharedALinear(MokaLinear):
    """s B (A x + lambda c), c over z = A x: MokA's update where all modalities' A is the same parameter, `moka_A`."""

    def factor_sizes(self, options: Any, r: int) -> dict[str, tuple[int, int]]:
        return {"moka_A": (self.in_features, r), "moka_B": (r, self.out_features)}

    def _weight(self, container: str, adapter: str) -> Tensor:
        return super()._weight("moka_A" if container.startswith("moka_A_") else container, adapter)


class MokaSharedAModel(MokaModel):
    """As MokaModel; with interaction "none" it is LoRA and merges completely."""

    tuner_layer_cls = MokaSharedALinear
    no_one_weight = (
        "`merge_and_unload` would lose the interaction: media tokens attend to the instruction, which no single weight "
        "can hold. Use merge_adapter(): it folds the text path and keeps the rest. unload() drops the adapter."
    )
