"""What the methods that MokA is compared with have in common: a config, a layer whose `update` each of them writes, and
a model. They run on MokA's routing and inside PEFT like MokA itself, in plain torch."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor

from moka_peft.routing import Routing
from moka_peft.tuner import MokaLinear, MokaModel
from moka_peft.tuner.config import RoutedConfig, accept_lora_keywords


class RivalPeftType(str, Enum):  # noqa: UP042 - as MokaPeftType
    """The rivals' own peft types: an adapter opened without this library fails instead of loading as plain LoRA."""

    MULTIPLE_LORA = "MOKA_MULTIPLE_LORA"
    LORA_MOE = "MOKA_LORA_MOE"
    HYDRA_LORA = "MOKA_HYDRA_LORA"
    UNI_MODAL_LORA = "MOKA_UNI_MODAL_LORA"
    UNI_MM_LORA = "MOKA_UNI_MM_LORA"
    UNI_MM_LORA_GATE = "MOKA_UNI_MM_LORA_GATE"
    IMOD = "MOKA_IMOD"
    SHARED_A = "MOKA_SHARED_A"


@accept_lora_keywords
@dataclass
class RivalConfig(RoutedConfig):
    """LoRA's keywords, `modalities` and `routing`: see `RoutedConfig`."""

    kind: ClassVar[RivalPeftType]
    interaction: ClassVar[str] = "none"  # what the routing's checks ask of any adapter
    supervised_instruction: ClassVar[str] = "raise"
    impl: ClassVar[str] = "eager"

    def __post_init__(self) -> None:
        super().__post_init__()
        self.peft_type = self.kind  # pyright: ignore[reportAttributeAccessIssue]


class RivalLinear(MokaLinear):
    """base(x) + update(x): a rival says which matrices it has (`factor_sizes`) and what they add (`update`).

    Names of matrices begin with `moka_A` (drawn at random), `moka_B` (zero at first) or `moka_router` (random).
    """

    def update(self, adapter: str, x: Tensor, routing: Routing) -> Tensor:
        """What the adapter adds [B, S, O] at tokens x [B, S, I], dropout applied."""
        raise NotImplementedError

    def is_one_weight(self, adapter: str) -> bool:
        return False

    def text_update(self, adapter: str) -> Tensor:
        """s B A [O, I] where `is_one_weight`. Raises ValueError elsewhere: no weight holds what text alone gets."""
        raise ValueError(RivalModel.no_one_weight)

    def product(self, adapter: str, A: str, B: str) -> Tensor:
        """s B A [O, I] of two of the adapter's matrices, in float32 at least."""
        a, b = self._weight(A, adapter).detach(), self._weight(B, adapter).detach()
        dtype = torch.promote_types(a.dtype, torch.float32)
        return self.scaling[adapter] * (b.to(dtype) @ a.to(dtype))

    def forward(self, x: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        """[..., O] from [..., I]."""
        if self.disable_adapters:
            if self.merged:
                self.unmerge()
            return self.base_layer(x, *args, **kwargs)
        result = self.base_layer(x, *args, **kwargs)
        for name in self._unmerged_active():
            routing = self._routing(name, x)
            rows = F.dropout(x, self._dropped(name)).reshape(*routing.shape, -1)
            result = result + self.update(name, rows, routing).view(result.shape).to(result.dtype)
        return result

    def merge(self, *args: Any, **kwargs: Any) -> None:
        """As MokA's, where one weight holds the whole update. Raises ValueError where it depends on the token."""
        for name in self.active_adapters:
            if name in self.r and not self.is_one_weight(name):
                raise ValueError(RivalModel.no_one_weight)
        super().merge(*args, **kwargs)

    def factor(self, name: str, adapter: str, like: Tensor) -> Tensor:
        """One of the adapter's matrices in the dtype of `like`."""
        return self._weight(name, adapter).to(like.dtype)


class RivalModel(MokaModel):
    """A model with a rival's adapters."""

    tuner_layer_cls = RivalLinear
    no_one_weight = (
        "the adapter cannot be merged: what it adds depends on the token, which no single weight can hold. Use it "
        "unmerged; unload() drops it."
    )

    def _options(self, config: Any, key: str) -> Any:
        return config
