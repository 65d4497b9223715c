"""Update: what one adapter does to one Linear in one forward, and its gradients, on flat tokens T = B S.

z_t = A_m(t) x_t       u = z + lambda c(z)       y = x W^T + b + s u B^T          (MokA, arXiv 2506.05191)

du = s g B,  dB = s g^T u,  dz = du + the way through c,  dx = g W + dz A_m(t),  dA_m = the sum of dz_t x_t^T
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from types import ModuleType
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from moka_peft.routing import Routing
from moka_peft.routing.blocks import Blocks, blocks_of
from moka_peft.routing.plan import Plan, plan_of

from .attention import average, average_backward
from .dropout import Dropout


@dataclass(frozen=True, eq=False)
class Update:
    """Everything that takes no gradient. `parts`: the implementation, `ops.eager` or `ops.triton`.

    `before` and `after`: what z and the expansion are multiplied with; one of them is s. `wide`: the dtype
    of the attention, float32 or wider.
    """

    plan: Plan
    blocks: Sequence[Blocks]
    interaction: str
    before: float
    after: float
    wide: torch.dtype
    parts: ModuleType
    dropout: Dropout | None

    @classmethod
    def of(
        cls,
        routing: Routing,
        dtype: torch.dtype,
        parts: ModuleType,
        *,
        scaling: float,
        cross_scale: tuple[float, ...],
        interaction: str,
        scale_before_attention: bool,
        instruction_span: str,
        dropout: Dropout | None = None,
    ) -> Update:
        """The update of a layer whose input is `dtype`; its plan is made once for all layers of a forward."""
        wide = torch.promote_types(dtype, torch.float32)
        contiguous = interaction == "cross_attention" and instruction_span == "contiguous"
        is_text_query = interaction == "text_query"
        return cls(
            plan=plan_of(routing, len(cross_scale) + 1),
            blocks=()
            if interaction == "none"
            else blocks_of(routing, cross_scale, wide, text_query=is_text_query, contiguous=contiguous),
            wide=wide,
            interaction=interaction,
            before=scaling if scale_before_attention else 1.0,
            after=1.0 if scale_before_attention else scaling,
            parts=parts,
            dropout=dropout,
        )

    def compress(self, x: Tensor, A: Sequence[Tensor]) -> Tensor:
        """z [T, r] of x [T, I], in its dtype; 0 at padding."""
        z = self.parts.project(x, A, self.plan, self.dropout)
        return z.mul_(self.dropout.scale) if self.dropout else z

    def interact(self, z: Tensor) -> tuple[Tensor, Any]:
        """u [T, r], and what `interact_backward` takes."""
        wide = self._scaled(z)
        if not self.blocks:
            u, state = wide, None
        elif self.interaction == "mean":
            u, state = average(wide, self.blocks), None
        else:
            u, state = self.parts.attend(wide, self.blocks)
        return u.to(z.dtype), state

    def interact_backward(self, z: Tensor, du: Tensor, state: Any) -> Tensor:
        """dz [T, r] from du [T, r]."""
        du = du.to(self.wide)
        if not self.blocks:
            dz = du
        elif self.interaction == "mean":
            dz = average_backward(du, self.blocks)
        else:
            dz = self.parts.attend_backward(self._scaled(z), du, self.blocks, state)
        dz = dz if self.before == 1 else dz * self.before
        return dz.to(z.dtype)

    def _scaled(self, z: Tensor) -> Tensor:
        wide = z if z.dtype == self.wide else z.to(self.wide)
        return wide if self.before == 1 else wide * self.before

    def forward(
        self,
        x: Tensor,
        weight: Tensor | None,
        bias: Tensor | None,
        result: Tensor | None,
        A: Sequence[Tensor],
        B: Tensor,
    ) -> tuple[Tensor, Tensor]:
        """y [T, O] and z [T, r]: added to `result` [T, O] where there is one, else to x weight^T + bias, else alone."""
        z = self.compress(x, A)
        u, _ = self.interact(z)
        if result is not None:
            return torch.addmm(result, u, B.t(), alpha=self.after), z
        if weight is None:
            return (u * self.after) @ B.t(), z
        y = F.linear(x, weight, bias)
        self.parts.expand_(y, u, B, self.after)
        return y, z

    def backward(
        self, g: Tensor, x: Tensor, z: Tensor, weight: Tensor | None, A: Sequence[Tensor], B: Tensor, wants_dx: bool
    ) -> tuple[Tensor | None, list[Tensor], Tensor]:
        """dx [T, I] (None unless wanted), every dA [r, I] and dB [O, r] from g [T, O]; u is computed again."""
        u, state = self.interact(z)
        du, dB = self.parts.expand_backward(g, u, B, self.after)
        dx = None
        if wants_dx:
            dx = torch.zeros_like(x) if weight is None else g @ weight
        return dx, self.compress_backward(dx, du, x, z, A, state), dB

    def compress_backward(
        self, dx: Tensor | None, du: Tensor, x: Tensor, z: Tensor, A: Sequence[Tensor], state: Any
    ) -> list[Tensor]:
        """Every dA [r, I] from du [T, r], which is written over; adds dz A to `dx` in place."""
        if self.plan.has_padding:
            du = du.masked_fill((self.plan.modality < 0).unsqueeze(1), 0)
        dz = self.interact_backward(z, du, state)
        dz = dz * self.dropout.scale if self.dropout else dz
        return self.parts.project_backward(dx, dz, x, A, self.plan, self.dropout)


def without_autocast(x: Tensor) -> AbstractContextManager:
    """x has the dtype to compute in; autocast would narrow what is wide on purpose. The meta device has none."""
    kind = x.device.type
    if x.is_meta:
        return nullcontext()
    return torch.autocast(kind, enabled=False) if torch.is_autocast_enabled(kind) else nullcontext()
