import pytest

import moka_peft.analysis.compare.cost as cost_module
import moka_peft.ops.attention as attention
from moka_peft.analysis.compare.cost import Cost, cost_of, measure_cost


@pytest.fixture(scope="module")
def costs(recipe_file):
    from moka_peft.analysis.compare.grid import Wanted, plan_grid
    from moka_peft.training import load_recipe

    wanted = Wanted(("lora", "moka"), {"lora": 1, "moka": 1}, ("rank",))
    return [measure_cost(cell.recipe) for cell in plan_grid(load_recipe(recipe_file), wanted).cells]


def test_lora_costs_a_multiplication_and_an_addition_per_parameter_and_token(costs):
    lora, _ = costs
    assert lora.flops_per_token == 2 * lora.adapter_parameters


def test_moka_adds_only_its_attention_over_the_instruction(costs):
    lora, moka = costs
    assert 1 < moka.flops_per_token / lora.flops_per_token < 3


def test_attention_counts_the_same_in_the_kernel_for_large_batches(costs, plan, monkeypatch):
    monkeypatch.setattr(attention, "FLASH_FROM", 0)
    assert measure_cost(plan().cells[1].recipe).flops_per_token == costs[1].flops_per_token


def test_a_step_keeps_activations(costs):
    assert all(cost.kept_bytes > 10**6 for cost in costs)


def test_a_cost_is_measured_once(plan, tmp_path, monkeypatch):
    [cell, _] = plan().cells
    measured = [Cost(1, 2.0, 3), Cost(0, 0.0, 0)]
    monkeypatch.setattr(cost_module, "measure_cost", lambda recipe: measured.pop(0))
    found = [cost_of(cell.recipe, tmp_path / "costs" / "one.json") for _ in range(2)]
    assert found == [Cost(1, 2.0, 3)] * 2 and len(measured) == 1
    assert [path.name for path in (tmp_path / "costs").iterdir()] == ["one.json"]
