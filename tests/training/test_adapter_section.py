"""What the adapter section of a recipe may not say, with every method."""

from pathlib import Path

import pytest

from moka_peft.training import RecipeError, load_recipe
from moka_peft.training.methods import CONFIGS, known_settings

QUICKSTART = Path(__file__).parents[2] / "recipes" / "quickstart.yaml"


def problems_of(*settings: str) -> list[str]:
    with pytest.raises(RecipeError) as caught:
        load_recipe(QUICKSTART, settings)
    return [problem.rpartition(": `")[2] for problem in caught.value.problems]


@pytest.mark.parametrize("method", CONFIGS)
def test_every_method_is_taken(method: str):
    recipe = load_recipe(QUICKSTART, [f"adapter.method={method}", "adapter.r=4", "adapter.lora_dropout=0.1"])
    assert (recipe.adapter.method, recipe.adapter.r) == (method, 4)


@pytest.mark.parametrize(
    ("method", "weights"), [("lora_moe", ["balance_weight"]), ("imod", ["decoupling_weight", "alignment_weight"])]
)
def test_a_loss_of_the_methods_own_is_neither_scaled_nor_divided(method: str, weights: list[str]):
    settings = [f"adapter.method={method}", "training.fp16=true", "training.gradient_accumulation=4"]
    without = " and ".join(f"`adapter.{weight}: 0`" for weight in weights)
    refused = [
        f"training.fp16` scales the loss, and would drown the one that {method} has of its own. Use `training.bf16`, "
        f"or set {without}.",
        f"training.gradient_accumulation` would add the loss that {method} has of its own 4 times a step. Raise "
        f"`batch_size`, or set {without}.",
    ]
    ends = [problem[-len(text) :] for problem, text in zip(problems_of(*settings), refused, strict=True)]
    assert ends == refused
    off = [f"adapter.{weight}=0" for weight in weights]
    assert load_recipe(QUICKSTART, [*settings, *off]).training.fp16
    for weight in weights:
        on = [setting for setting in off if weight not in setting] + [f"adapter.{weight}=0.5"]
        assert len(problems_of(*settings, *on)) == 2
    load_recipe(QUICKSTART, [settings[0], "training.bf16=true", "training.gradient_accumulation=1"])


@pytest.mark.parametrize("method", [method for method in CONFIGS if method not in ("lora_moe", "imod")])
def test_others_are(method: str):
    load_recipe(QUICKSTART, [f"adapter.method={method}", "training.fp16=true", "training.gradient_accumulation=4"])


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ("method=lora num_experts=3", "num_experts` has no meaning for `method: lora`. Remove it or use"),
        ("method=uni_modal_lora num_experts=3", "num_experts` has no meaning for `method: uni_modal_lora`"),
        ("method=moka num_experts=3", "num_experts` has no meaning for `method: moka`"),
        ("method=hydra_lora balance_weight=0.1", "balance_weight` has no meaning for `method: hydra_lora`"),
        ("method=imod cross_scale=0.5", "cross_scale` has no meaning for `method: imod`"),
        ("method=multiple_lora interaction=mean", "interaction` has no meaning for `method: multiple_lora`"),
        ("method=moka_shared_a shared_share=0.5", "shared_share` has no meaning for `method: moka_shared_a`"),
        ("method=none mask_seed=1", "mask_seed` has no meaning for `method: none`"),
        ("method=lora_moe num_experts=0", "num_experts` is wrong: expected greater than 0, got 0"),
        ("method=lora_moe num_experts=2.5", "num_experts` is wrong: expected a valid integer, got 2.5"),
        ("method=lora_moe num_experts=true", "num_experts` is wrong: expected a valid integer, got True"),
        ("method=lora_moe balance_weight=-1", "balance_weight` is wrong: expected greater than or equal to 0"),
        ("method=lora_moe balance_weight=.inf", "balance_weight` is wrong: expected a finite number >= 0, got inf"),
        ("method=lora_moe balance_contrast=1", "balance_contrast` is wrong: expected less than 1, got 1"),
        ("method=imod mask_seed=-1", "mask_seed` is wrong: expected greater than or equal to 0, got -1"),
        ("method=imod shared_share=0.8", "shared_growth` is wrong: expected at most 1 - shared_share"),
        ("method=loramoe", "method` is wrong: expected 'moka', 'lora', 'dora',"),
        ("modalities=[visual,text]", "modalities` is wrong: expected distinct names that start with 'text'"),
        ("method=uni_modal_lora modalities=[text,text]", "modalities` is wrong: expected distinct names"),
        ("method=uni_modal_lora modalities=[]", "modalities` is wrong: expected distinct names"),
        ("method=imod modalities=[text,3]", "modalities` is wrong: expected a valid string, got 3"),
        ("method=imod modalities=text", "modalities` is wrong: expected a valid list, got 'text'"),
        ("cross_scale=.nan", "cross_scale` is wrong: expected a finite number or one per modality, got nan"),
        ("method=hydra_lora init_lora_weights=pissa", "init_lora_weights` is wrong: expected one of (True, False,"),
        ("method=hydra_lora layers_pattern=layers", "layers_pattern` needs `layers_to_transform`"),
    ],
)
def test_what_does_not_fit_is_named(settings: str, expected: str):
    [problem] = problems_of_adapter(settings)
    assert problem.startswith(f"`adapter.{expected}")


def problems_of_adapter(settings: str) -> list[str]:
    with pytest.raises(RecipeError) as caught:
        load_recipe(QUICKSTART, [f"adapter.{setting}" for setting in settings.split()])
    return [problem[problem.index("`adapter") :] for problem in caught.value.problems]


def test_two_settings_that_exclude_each_other():
    [problem] = problems_of_adapter("interaction=text_query instruction_span=contiguous")
    assert problem.startswith("`adapter` is refused: `instruction_span`='contiguous' is defined for media that attend")


def test_every_setting_of_a_rival_can_be_told_in_a_recipe():
    told = set(load_recipe(QUICKSTART).adapter.model_dump())
    pefts = known_settings("multiple_lora") - {"num_experts"} | {"routing"}
    for method in CONFIGS:
        if method not in ("lora", "dora"):
            assert known_settings(method) - pefts <= told, method
