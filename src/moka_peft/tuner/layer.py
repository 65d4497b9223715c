"""MokaLinear: a frozen Linear with one A per modality and one B."""

from __future__ import annotations

import math
from typing import Any

import torch
from peft.tuners.tuners_utils import BaseTunerLayer, check_adapters_to_merge
from torch import Tensor, nn

from moka_peft.routing import Routing
from moka_peft.routing.facts import has_media

from .channel import RoutingChannel
from .computation import Adapter, text_updated, updated, with_residual
from .offload import execution_device, weight_of
from .plain import is_plain
from .quantized import dense_weight, is_quantized, restore_weight, round_weight, stored_weight
from .rows import routing_of
from .sharding import Factor


class MokaLinear(nn.Module, BaseTunerLayer):
    """base(x) + delta(x, A's, B, routing), for any number of adapters.

    Parameters, per adapter: `moka_A_<modality>.<adapter>.weight` [r, I] and `moka_B.<adapter>.weight` [O, r].
    x is [B, S, I] or what `rows.routing_of` knows as that; the routing comes from the model's channel, set by its
    forward hook. Raises RuntimeError where there is none.
    """

    def __init__(self, base_layer: nn.Linear, channel: RoutingChannel, name: str) -> None:
        super().__init__()
        self.base_layer = base_layer
        self.channel = channel
        self.name = name
        self.in_features, self.out_features = base_layer.in_features, base_layer.out_features
        self.moka_B = nn.ModuleDict()
        self.moka_dropout = nn.ModuleDict()
        self.adapter_layer_names = ("moka_B",)
        self.other_param_names = ("r", "scaling", "options", "moka_dropout")
        self.r: dict[str, int] = {}
        self.scaling: dict[str, float] = {}
        self.options: dict[str, Any] = {}
        self.merged_adapters: list[str] = []
        self.unmerged_weight: dict[str, Any] | None = None  # a quantized base's, while merged

    def update_layer(
        self,
        adapter: str,
        options: Any,
        *,
        r: int,
        lora_alpha: float,
        lora_dropout: float,
        use_rslora: bool,
        init_lora_weights: bool | str,
        inference_mode: bool = False,
    ) -> None:
        """Adds or replaces `adapter`'s weights, in the base layer's dtype and on the device where it computes.

        options: how the adapter computes, a `DeltaOptions` for MokA.
        """
        self.r[adapter] = r
        self.scaling[adapter] = lora_alpha / (math.sqrt(r) if use_rslora else r)
        self.options[adapter] = options
        self.moka_dropout[adapter] = nn.Dropout(lora_dropout) if lora_dropout else nn.Identity()
        for name, (inputs, outputs) in self.factor_sizes(options, r).items():
            self._container(name)[adapter] = Factor(inputs, outputs)
        self.reset_parameters(adapter, init_lora_weights)
        self._move_adapter_to_device_of_base_layer(adapter, device=execution_device(self.get_base_layer()))
        self.set_adapter(self.active_adapters, inference_mode=inference_mode)

    def factor_sizes(self, options: Any, r: int) -> dict[str, tuple[int, int]]:
        """The adapter's matrices: name of the container -> (inputs, outputs), the weight being [outputs, inputs]."""
        A = {f"moka_A_{modality}": (self.in_features, r) for modality in options.modalities}
        return {**A, "moka_B": (r, self.out_features)}

    def _container(self, name: str) -> nn.ModuleDict:
        if name not in self.adapter_layer_names:
            self.adapter_layer_names = (*self.adapter_layer_names, name)
        if name not in self._modules:
            setattr(self, name, nn.ModuleDict())
        return getattr(self, name)

    def reset_parameters(self, adapter: str, init_lora_weights: bool | str) -> None:
        """A: Kaiming uniform (a = sqrt 5) or normal ("gaussian"); B: zero, or random too where False."""
        for name in self.factor_sizes(self.options[adapter], self.r[adapter]):
            weight = self._weight(name, adapter)
            if name.startswith("moka_B") and init_lora_weights:
                nn.init.zeros_(weight)
            elif name.startswith("moka_A") and init_lora_weights == "gaussian":
                nn.init.normal_(weight, std=1 / self.r[adapter])
            else:
                nn.init.kaiming_uniform_(weight, a=math.sqrt(5))

    def _weight(self, container: str, adapter: str) -> Tensor:
        return weight_of(self._modules[container]._modules[adapter])  # pyright: ignore[reportOptionalMemberAccess, reportArgumentType]

    def stacked_A(self, adapter: str) -> Tensor:
        """A [M, r, I] in the order of the adapter's modalities."""
        return torch.stack(self._adapter(adapter).A)

    def is_one_weight(self, adapter: str) -> bool:
        """Whether the update is the same for every token, so that a plain weight can hold all of it."""
        A = self.stacked_A(adapter)
        return self.options[adapter].interaction == "none" and bool(torch.equal(A, A[:1].expand_as(A)))

    def forward(self, x: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        """[..., O] from [..., I]."""
        if self.disable_adapters:
            if self.merged:
                self.unmerge()
            return self.base_layer(x, *args, **kwargs)
        unmerged = self._unmerged_active()
        is_called = not unmerged or args or kwargs or torch.compiler.is_compiling() or not is_plain(self.base_layer)
        result: Any = self.base_layer(x, *args, **kwargs) if is_called else None
        for name in unmerged:
            routing = self._routing(name, x)
            if self._is_text_alone(name, routing):
                A, B = self._weight("moka_A_text", name), self._weight("moka_B", name)
                result = text_updated(A, B, self.scaling[name], x, routing, self.base_layer, result)
            else:
                result = updated(self._adapter(name), x, routing, self.base_layer, result)
        for name in self.merged_adapters:
            routing = self._routing(name, x)
            if has_media(routing):
                result = with_residual(self._adapter(name), x, routing, result)
        return result

    def _unmerged_active(self) -> list[str]:
        return [a for a in self.active_adapters if a in self.r and a not in self.merged_adapters]

    def _routing(self, adapter: str, x: Tensor) -> Routing:
        routing = self.channel.read(adapter, self.name, x.device)
        return routing_of(x, routing, self.options[adapter].interaction, self.channel.logits_to_keep)

    def _is_text_alone(self, adapter: str, routing: Routing) -> bool:
        """As in a decode step. Not where gradients are recorded: every A gets one, if only of zeros."""
        if torch.is_grad_enabled() or has_media(routing) or self.options[adapter].impl == "reference":
            return False
        return not (self.training and self._dropped(adapter))

    def _dropped(self, adapter: str) -> float:
        dropout = self.moka_dropout[adapter]
        return dropout.p if dropout.training and isinstance(dropout, nn.Dropout) else 0.0

    def _adapter(self, name: str) -> Adapter:
        return Adapter(
            A=[self._weight(f"moka_A_{modality}", name) for modality in self.options[name].modalities],
            B=self._weight("moka_B", name),
            scaling=self.scaling[name],
            dropout=self._dropped(name),
            options=self.options[name],
        )

    def merge(
        self, safe_merge: bool = False, adapter_names: list[str] | None = None, *, allow_rounding: bool = False
    ) -> None:
        """Folds s B A_text into the base weight.

        Raises ValueError on a quantized base unless `allow_rounding`, and on a non-finite result with `safe_merge`.
        """
        adapters = [a for a in check_adapters_to_merge(self, adapter_names) if a in self.r]
        if not adapters:
            return
        base: Any = self.get_base_layer()
        rounded = is_quantized(base)
        if rounded and not allow_rounding:
            raise ValueError(
                f"`merge_adapter`: the base of {self.name!r} is quantized ({type(base).__name__}); folding the text "
                "path into it rounds it to that precision. Use the adapter unmerged, or merge_adapter(safe=False)."
            )
        weight = dense_weight(base) if rounded else base.weight.data
        merged = weight + sum(self.text_update(a).to(weight.dtype) for a in adapters)
        if safe_merge and not torch.isfinite(merged).all():
            raise ValueError(f"`merge_adapter`: adapters {adapters} make the weight of {self.name!r} non-finite.")
        if not rounded:
            weight.copy_(merged)
        else:
            self.unmerged_weight = self.unmerged_weight or stored_weight(base)
            round_weight(base, merged)
        self.merged_adapters += adapters

    def unmerge(self) -> None:
        """Takes every merged adapter out of the base weight again; a quantized weight comes back bit for bit."""
        base: Any = self.get_base_layer()
        if self.unmerged_weight is not None:
            restore_weight(base, self.unmerged_weight)
            self.unmerged_weight = None
            self.merged_adapters.clear()
        while self.merged_adapters:
            weight = base.weight.data
            weight.sub_(self.text_update(self.merged_adapters.pop()).to(weight.dtype))

    def text_update(self, adapter: str) -> Tensor:
        """s B A_text [O, I], the text path as an ordinary low-rank update."""
        A, B = self._weight("moka_A_text", adapter), self._weight("moka_B", adapter)
        dtype = torch.promote_types(A.dtype, torch.float32)
        return self.scaling[adapter] * (B.detach().to(dtype) @ A.detach().to(dtype))

    def get_delta_weight(self, adapter: str) -> Tensor:
        """PEFT's name for the update of the text path; media tokens get another one, see the class."""
        return self.text_update(adapter)

    def extra_repr(self) -> str:
        parts = [
            f"{a}: r={self.r[a]}, modalities={'/'.join(o.modalities)}, interaction={o.interaction}, impl={o.impl}"
            for a, o in self.options.items()
        ]
        return "; ".join(parts)

    def __repr__(self) -> str:
        return "moka." + super().__repr__()
