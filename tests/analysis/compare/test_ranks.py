import pytest

from moka_peft.analysis.compare.grid import Wanted, plan_grid
from moka_peft.analysis.compare.methods import VARIANTS
from moka_peft.analysis.compare.ranks import adapter_parameters, count_adapter, nearest_rank, with_rank
from moka_peft.training.methods import CONFIGS
from moka_peft.training.model import add_adapter, load_model

RANKED = [name for name, variant in VARIANTS.items() if variant.adapter["method"] in CONFIGS]


@pytest.fixture(scope="module")
def widths() -> tuple[int, int]:
    """Sums of the inputs and of the outputs of the Linears in the tiny model's decoder."""
    from torch import nn

    model, _ = load_model("tiny-avt")
    linears = [module for module in model.get_decoder().layers.modules() if isinstance(module, nn.Linear)]
    return sum(linear.in_features for linear in linears), sum(linear.out_features for linear in linears)


def test_parameters_are_counted_by_their_formulas(plan, widths):
    inputs, outputs = widths
    lora, moka = plan().cells
    assert adapter_parameters(lora.recipe) == 4 * (inputs + outputs)
    assert adapter_parameters(moka.recipe) == 4 * (3 * inputs + outputs)


def test_parts_that_train_in_full_are_not_counted(plan):
    [_, cell] = plan().cells
    model = add_adapter(*load_model("tiny-avt"), **cell.recipe.adapter.model_dump(), train=("projectors",))
    assert count_adapter(model) == adapter_parameters(cell.recipe)
    assert model.get_nb_trainable_parameters()[0] > count_adapter(model)


@pytest.mark.parametrize(
    ("variant", "budget_of"), [*((name, ("moka", 3)) for name in RANKED), ("moka", ("lora", 8)), ("lora", ("lora", 8))]
)
def test_equal_parameters_are_within_half_a_rank_of_the_budget(recipe, variant, budget_of):
    [budget] = recipes(recipe, budget_of[0], (), vary={"adapter.r": [budget_of[1]]})
    [found] = recipes(recipe, variant, ("parameters",), budget_of=budget_of)
    r, own = found.adapter.r, adapter_parameters(found)
    [more] = recipes(recipe, variant, (), vary={"adapter.r": [r + 1]})
    assert abs(own - adapter_parameters(budget)) <= (adapter_parameters(more) - own) / 2
    assert found.adapter.lora_alpha / r == recipe.adapter.lora_alpha / recipe.adapter.r


def test_the_note_says_the_budget_and_how_far_each_is_from_it(recipe, widths):
    inputs, outputs = widths
    wanted = Wanted(("lora", "moka"), {"lora": 1, "moka": 1}, ("parameters",))
    grid = plan_grid(recipe, wanted)
    budget, r = 4 * (3 * inputs + outputs), grid.cells[0].recipe.adapter.r
    lora = r * (inputs + outputs)
    assert grid.notes[0] == (
        f"Equal parameters: those of MokA at rank 4, {budget:,}. LoRA r {r}: {lora:,} ({lora / budget - 1:+.1%}); "
        f"MokA r 4: {budget:,} (+0.0%)."
    )


def test_a_method_without_a_rank_has_no_place_at_equal_parameters(recipe):
    wanted = Wanted(("lora", "none"), {"lora": 1, "none": 1}, ("rank", "parameters"))
    assert [[row.variant for row in table.rows] for table in plan_grid(recipe, wanted).tables] == [
        ["lora", "none"],
        ["lora"],
    ]


def test_the_nearest_rank_is_at_least_one():
    assert [nearest_rank(lambda r: 100 * r + 30, budget) for budget in (0, 179, 181, 1030)] == [1, 1, 2, 10]


def test_the_scaling_stays_at_another_rank():
    assert with_rank({"r": 4, "lora_alpha": 8.0}, 6) == {"r": 6, "lora_alpha": 12.0}
    changed = with_rank({"r": 4, "lora_alpha": 8.0, "use_rslora": True}, 16)  # alpha / sqrt(r) = 4
    assert changed["lora_alpha"] == 16.0


def test_the_scaling_stays_to_the_last_digit():
    """Else one run would have two identities, by the rank that its recipe was written with."""
    for r in range(1, 33):
        found = [with_rank({"r": r, "lora_alpha": 2.0 * r}, rank)["lora_alpha"] for rank in range(1, 65)]
        assert found == [2.0 * rank for rank in range(1, 65)]


def test_an_alpha_of_its_own_goes_with_the_rank():
    assert with_rank({"r": 4, "lora_alpha": 8.0, "alpha_pattern": {"q_proj": 16.0}}, 6)["alpha_pattern"] == {
        "q_proj": 24.0
    }


def recipes(recipe, variant, equal, **options):
    """The recipes of one method's runs."""
    wanted = Wanted((variant,), {variant: 1}, equal, baseline=variant, **options)
    return [cell.recipe for cell in plan_grid(recipe, wanted).cells]
