"""The card of a run's folder."""

from pathlib import Path

from moka_peft.composite import CompositeForConditionalGeneration
from moka_peft.training import load_recipe
from moka_peft.training.card import write_run_card

NUMBERS = {"steps": 1, "trained_parameters": 1, "parameters": 2, "processes": 1, "after": {}}


def test_the_base_is_opened_as_the_run_did(write_yaml, tmp_path: Path):
    recipe = load_recipe(write_yaml(), ["model={name: a/b, revision: v1, dtype: bfloat16}"]).model_dump()
    write_run_card(tmp_path, recipe, NUMBERS, CompositeForConditionalGeneration)
    opened = 'base = CompositeForConditionalGeneration.from_pretrained("a/b", revision="v1", dtype="bfloat16")'
    assert opened in (tmp_path / "README.md").read_text()


def test_a_setting_of_zero_is_told(write_yaml, tmp_path: Path):
    recipe = load_recipe(write_yaml(), ["adapter.cross_scale=0.0"]).model_dump()
    write_run_card(tmp_path, recipe, NUMBERS, CompositeForConditionalGeneration)
    card = (tmp_path / "README.md").read_text()
    assert "`cross_scale: 0.0`" in card and "`weight_decay: 0.0`" in card
    assert "use_rslora" not in card and "max_length" not in card
