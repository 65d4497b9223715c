"""The adapter section of a recipe: the method, and the keywords of its config."""

from typing import Annotated, Any, Literal

from pydantic import Field, PositiveFloat, PositiveInt

from moka_peft.training.methods import CONFIGS, known_settings
from moka_peft.training.recipe_conflicts import Problem, section
from moka_peft.training.recipe_model import Section

Share = Annotated[float, Field(ge=0, lt=1)]
Weight = Annotated[float, Field(ge=0)]
Count = Annotated[int, Field(ge=0)]
Modules = list[str] | str | None


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
    trained = [raw.get("train_projectors"), adapter.get("modules_to_save"), *section(raw, "train").values()]
    if method == "none" and not any(trained):
        found.append((("adapter", "method"), "is none and nothing else trains. Set `train.projectors: true`."))
    return found


def _method_with(key: str) -> str:
    return next((method for method in CONFIGS if key in known_settings(method)), "moka")
