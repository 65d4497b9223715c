"""The adapter section of a recipe: the method, and the keywords of its config."""

import re
from dataclasses import fields
from typing import Annotated, Any, Literal

from pydantic import Field, PositiveFloat, PositiveInt, ValidationError

from moka_peft.training.methods import CONFIGS, PEFTS_OWN, build_config, known_settings
from moka_peft.training.recipe_conflicts import Problem, section
from moka_peft.training.recipe_model import Section

Share = Annotated[float, Field(ge=0, lt=1)]
Weight = Annotated[float, Field(ge=0)]
Count = Annotated[int, Field(ge=0)]
Modules = list[str] | str | None

OWN_LOSS = {"lora_moe": ("balance_weight",), "imod": ("decoupling_weight", "alignment_weight")}
"""Methods with a loss of their own, which rides on the gradient alone, and the weights that it has."""


class Adapter(Section):
    """The adapter: a method, and the keywords of its config: `MokaConfig`, `LoraConfig`, or those of a rival in
    `moka_peft.baselines`; None is the method's default. `none`: only parts in full."""

    method: Literal[
        "moka",
        "lora",
        "dora",
        "multiple_lora",
        "lora_moe",
        "hydra_lora",
        "uni_modal_lora",
        "uni_mm_lora",
        "uni_mm_lora_gate",
        "imod",
        "moka_shared_a",
        "none",
    ] = "moka"
    r: PositiveInt = 8
    lora_alpha: PositiveFloat = 16
    lora_dropout: Share = 0.0
    use_rslora: bool = False
    target_modules: Modules = None
    exclude_modules: Modules = None
    modules_to_save: list[str] | None = None
    rank_pattern: dict[str, PositiveInt] = Field(default_factory=dict)
    alpha_pattern: dict[str, PositiveFloat] = Field(default_factory=dict)
    layers_to_transform: list[Count] | Count | None = None
    layers_pattern: Modules = None
    init_lora_weights: bool | str = True
    bias: Literal["none", "all", "lora_only"] = "none"
    modalities: list[str] | None = None
    cross_scale: float | list[float] = 1.0
    interaction: Literal["cross_attention", "text_query", "mean", "none"] = "cross_attention"
    scale_before_attention: bool = False
    instruction_span: Literal["tokens", "contiguous"] = "tokens"
    supervised_instruction: Literal["raise", "ignore"] = "raise"
    impl: Literal["auto", "eager", "reference"] = "auto"
    num_experts: PositiveInt | None = None
    balance_weight: Weight | None = None
    balance_contrast: Share | None = None
    shared_share: Share | None = None
    shared_growth: Share | None = None
    decoupling_weight: Weight | None = None
    alignment_weight: Weight | None = None
    mask_seed: Count | None = None


def adapter_conflicts(raw: dict[str, Any]) -> list[Problem]:
    """Keys of the adapter that its method does not know, and a run in which nothing would train; raw: unvalidated."""
    adapter = section(raw, "adapter")
    method = adapter.get("method", "moka")
    found: list[Problem] = []
    if method in (*CONFIGS, "none"):
        unknown = set(Adapter.model_fields) - known_settings(method) - {"method"}
        found += [
            (("adapter", key), f"has no meaning for `method: {method}`. Remove it or use `{_method_with(key)}`.")
            for key in sorted(set(adapter) & unknown)
            if adapter[key] != Adapter.model_fields[key].get_default(call_default_factory=True)  # else as written
        ]
        found += _own_loss_conflicts(method, adapter, section(raw, "training"))
        found += [] if found else _refused(method, adapter)
    trained = [raw.get("train_projectors"), adapter.get("modules_to_save"), *section(raw, "train").values()]
    if method == "none" and not any(trained):
        found.append((("adapter", "method"), "is none and nothing else trains. Set `train.projectors: true`."))
    return found


def _own_loss_conflicts(method: str, adapter: dict[str, Any], training: dict[str, Any]) -> list[Problem]:
    """What would change the weight of a method's own loss against the task's: its gradient is no part of the loss that
    the Trainer scales and divides."""
    weights = OWN_LOSS.get(method, ())
    defaults = {field.name: field.default for field in fields(CONFIGS[method])} if weights else {}
    if not any(defaults[name] if adapter.get(name) is None else adapter[name] for name in weights):
        return []
    without = f"set {' and '.join(f'`adapter.{name}: 0`' for name in weights)}"
    found: list[Problem] = []
    if training.get("fp16") is True:
        told = f"scales the loss, and would drown the one that {method} has of its own. Use `training.bf16`, or"
        found.append((("training", "fp16"), f"{told} {without}."))
    accumulation = training.get("gradient_accumulation", 1)
    if isinstance(accumulation, int) and accumulation > 1:
        told = f"would add the loss that {method} has of its own {accumulation} times a step. Raise `batch_size`, or"
        found.append((("training", "gradient_accumulation"), f"{told} {without}."))
    return found


def _refused(method: str, adapter: dict[str, Any]) -> list[Problem]:
    """What the method's own config says to values that are each of the right type."""
    if method in PEFTS_OWN or method == "none":
        return []
    try:
        build_config(method, Adapter.model_validate(adapter).model_dump())
    except ValidationError:  # reported by whoever reads the recipe
        return []
    except ValueError as error:
        found = re.match(r"`(\w+)(?:\[.*?\])?`(:?) (?s:(.*))", str(error))
        if found and found[1] in Adapter.model_fields:
            return [(("adapter", found[1]), f"is wrong: {found[3]}" if found[2] else found[3])]
        return [(("adapter",), f"is refused: {error}")]
    return []


def _method_with(key: str) -> str:
    return next((method for method in CONFIGS if key in known_settings(method)), "moka")
