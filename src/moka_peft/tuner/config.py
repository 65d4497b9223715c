"""MokaConfig: LoraConfig's keywords plus MokA's own."""

from __future__ import annotations

import functools
import math
from collections.abc import Mapping, Sequence
from dataclasses import MISSING, dataclass, field, fields
from enum import Enum
from typing import Any

from peft import LoraConfig, PeftConfig

from moka_peft.ops.delta import check_options
from moka_peft.routing import RoutingSpec

from .card import write_card


class MokaPeftType(str, Enum):  # noqa: UP042 - PEFT's own PeftType is a str Enum, whose str() transformers compares
    """MokA's own peft type: an adapter opened without this library fails instead of loading as plain LoRA."""

    MOKA = "MOKA"


def accept_lora_keywords(cls: type) -> type:
    """Lets `cls` take every LoraConfig keyword it has no field for, at LoRA's neutral value and no other."""
    init = cls.__init__

    @functools.wraps(init)
    def checked_init(self: Any, *args: Any, **kwargs: Any) -> None:
        own = {f.name for f in fields(cls)}
        for lora_field in fields(LoraConfig):
            name = lora_field.name
            if name in own or name not in kwargs:
                continue
            value = kwargs.pop(name)
            if value is not None and value != _neutral(lora_field):
                raise ValueError(
                    f"`{name}` of LoraConfig is not implemented for MokA: expected its neutral value "
                    f"{_neutral(lora_field)!r}, got {value!r}. Leave it out."
                )
        init(self, *args, **kwargs)

    cls.__init__ = checked_init
    return cls


def _neutral(lora_field: Any) -> Any:
    return lora_field.default if lora_field.default_factory is MISSING else lora_field.default_factory()


@accept_lora_keywords
@dataclass
class RoutedConfig(PeftConfig):
    """What adapters that treat tokens by modality share: LoRA's keywords, the modalities, and where routing comes from.

    `r`, `lora_alpha`, `lora_dropout`, `use_rslora`, `rank_pattern`, `alpha_pattern`, `bias`, `modules_to_save`,
    `layers_to_transform`, `layers_pattern`, `exclude_modules`, `init_lora_weights` (True, False, "gaussian"): as in
    LoraConfig. `target_modules`: names match inside the text decoder only; None: the projections of its layers.
    `modalities`: names, "text" first; None: text and every modality with a placeholder token on the model.
    `routing`: the RoutingSpec; None: derived from the model's processor at the first forward that needs it.
    Raises ValueError, naming the keyword, on values that do not fit.
    """

    r: int = 8
    target_modules: list[str] | set[str] | str | None = None
    exclude_modules: list[str] | set[str] | str | None = None
    lora_alpha: float = 8
    lora_dropout: float = 0.0
    use_rslora: bool = False
    modules_to_save: list[str] | None = None
    init_lora_weights: bool | str = True
    layers_to_transform: list[int] | int | None = None
    layers_pattern: list[str] | str | None = None
    rank_pattern: dict = field(default_factory=dict)
    alpha_pattern: dict = field(default_factory=dict)
    bias: str = "none"
    modalities: Sequence[str] | None = None
    routing: RoutingSpec | Mapping[str, Any] | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        self.rank_pattern, self.alpha_pattern = self.rank_pattern or {}, self.alpha_pattern or {}
        for name in ("target_modules", "exclude_modules"):
            value = getattr(self, name)
            setattr(self, name, set(value) if isinstance(value, list | tuple) else value)
        if isinstance(self.routing, Mapping):
            self.routing = RoutingSpec.from_dict(self.routing)
        self._check_sizes()
        self._check_choice("bias", ("none", "all", "lora_only"))
        self._check_choice("init_lora_weights", (True, False, "gaussian"))
        if self.layers_pattern and self.layers_to_transform is None:
            raise ValueError("`layers_pattern` needs `layers_to_transform`: name the layers it applies to.")
        self._check_modalities()

    def save_pretrained(self, save_directory: str, **kwargs: Any) -> None:
        """Writes `adapter_config.json` with the routing spec, and a README that tells how to load the adapter."""
        super().save_pretrained(save_directory, **kwargs)
        write_card(save_directory, self.peft_type, self.base_model_name_or_path)

    def _check_sizes(self) -> None:
        for name, r in {"r": self.r, **{f"rank_pattern[{k!r}]": v for k, v in self.rank_pattern.items()}}.items():
            if not isinstance(r, int) or isinstance(r, bool) or r <= 0:
                raise ValueError(f"`{name}`: expected a rank, an integer > 0, got {r!r}.")
        if not 0 <= self.lora_dropout < 1:
            raise ValueError(f"`lora_dropout`: expected a probability in [0, 1), got {self.lora_dropout!r}.")

    def _check_choice(self, name: str, allowed: tuple[Any, ...]) -> None:
        if getattr(self, name) not in allowed:
            raise ValueError(f"`{name}`: expected one of {allowed}, got {getattr(self, name)!r}.")

    def _check_modalities(self) -> None:
        if self.modalities is None:
            return
        self.modalities = tuple(self.modalities)
        names = self.modalities
        if not names or names[0] != "text" or len(set(names)) < len(names) or not all(n.isidentifier() for n in names):
            raise ValueError(
                f"`modalities`: expected distinct names that start with 'text', such as ('text', 'visual', 'audio'), "
                f"got {names!r}."
            )


@accept_lora_keywords
@dataclass
class MokaConfig(RoutedConfig):
    """Configuration of a MokA adapter (arXiv 2506.05191). Replaces LoraConfig; its keywords mean the same here.

    LoRA's keywords, `modalities` and `routing`: see `RoutedConfig`.
    `cross_scale`: lambda, one number or one per non-text modality.
    `interaction`: "cross_attention", "text_query", "mean" or "none" (see `moka_peft.ops.moka_delta`).
    `scale_before_attention`, `instruction_span`: True and "contiguous" give the authors' audio-visual-text form.
    `supervised_instruction`: "raise" where an instruction token of a turn with media carries loss, or "ignore" it:
    it gets no gradient then, but a Trainer that counted it still divides by the count.
    `impl`: "auto", "eager" or "reference".
    Raises ValueError, naming the keyword, on values that do not fit.
    """

    cross_scale: float | Sequence[float] = 1.0
    interaction: str = "cross_attention"
    scale_before_attention: bool = False
    instruction_span: str = "tokens"
    supervised_instruction: str = "raise"
    impl: str = "auto"

    def __post_init__(self) -> None:
        super().__post_init__()
        self.peft_type = MokaPeftType.MOKA
        check_options(self.interaction, self.instruction_span, self.impl)
        self._check_choice("supervised_instruction", ("raise", "ignore"))
        scales = self.cross_scale if isinstance(self.cross_scale, Sequence) else [self.cross_scale]
        if not all(isinstance(s, int | float) and math.isfinite(s) for s in scales):
            raise ValueError(f"`cross_scale`: expected a finite number or one per modality, got {self.cross_scale!r}.")
