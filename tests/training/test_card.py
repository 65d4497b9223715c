"""The card of a run's folder."""

from pathlib import Path

from moka_peft.composite import CompositeForConditionalGeneration
from moka_peft.training import load_recipe
from moka_peft.training.card import write_run_card


def test_a_setting_of_zero_is_told(write_yaml, tmp_path: Path):
    recipe = load_recipe(write_yaml(), ["adapter.cross_scale=0.0"]).model_dump()
    numbers = {"steps": 1, "trained_parameters": 1, "parameters": 2, "processes": 1, "after": {}}
    write_run_card(tmp_path, recipe, numbers, CompositeForConditionalGeneration)
    card = (tmp_path / "README.md").read_text()
    assert "`cross_scale: 0.0`" in card and "`weight_decay: 0.0`" in card
    assert "use_rslora" not in card and "max_length" not in card
