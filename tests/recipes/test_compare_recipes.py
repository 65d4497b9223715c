"""The recipes of the comparison: each loads, asks what it says it asks, and trains for two steps."""

from pathlib import Path

import pytest
from rich.console import Console

from moka_peft.training import load_recipe, open_source, train
from moka_peft.training.recipe_data import Source

ROOT = Path(__file__).parents[2]
RECIPES = sorted((ROOT / "recipes" / "compare").glob("*.yaml"))
BUILT_IN = [path for path in RECIPES if path.stem not in ("speech", "large")]
SHORT = [
    "training.steps=2",
    "training.batch_size=2",
    "data.train.size=4",
    "data.eval.size=3",
    "evaluation.batch_size=3",
]


def names(path: Path) -> str:
    return path.stem


@pytest.mark.parametrize("path", RECIPES, ids=names)
def test_recipe_opens_with_its_commands_and_asks_other_questions_than_it_trains(path: Path):
    recipe = load_recipe(path, without_files=True)
    assert f"# moka compare recipes/compare/{path.name}" in path.read_text().splitlines()
    assert recipe.output_dir == f"runs/compare/{path.stem}"
    train_source, eval_source = recipe.data.train, recipe.data.eval
    assert isinstance(train_source, Source) and isinstance(eval_source, Source)
    assert (train_source.split, eval_source.split) == ("train", "test")
    assert not recipe.evaluation.before and (recipe.adapter.r, recipe.adapter.lora_alpha) == (4, 16)
    same = {"images", "sounds", "media", "kinds", "groups", "shortcuts", "scenario"}
    assert train_source.model_dump(include=same) == eval_source.model_dump(include=same)


def test_all_recipes_train_alike():
    """What was chosen on LoRA for the main one holds for the others."""
    settings = [load_recipe(path).training.model_dump() for path in BUILT_IN]
    assert all(other == settings[0] for other in settings)


@pytest.mark.parametrize(
    "path", [path for path in BUILT_IN if path.stem in ("av_digits", "visual", "av_shortcut")], ids=names
)
def test_two_steps_with_the_cache_are_those_without(path: Path, tmp_path: Path):
    common = [*SHORT, "adapter.method=lora"]
    results = []
    for cache in (f"data.cache={tmp_path / 'cache'}", "data.cache=null"):
        out = tmp_path / cache[-4:]
        metrics = train(load_recipe(path, [*common, cache, f"output_dir={out}"]), Console(quiet=True))
        weights = (out / "adapter_model.safetensors").read_bytes()
        results.append((weights, (out / "answers.jsonl").read_text(), metrics["held_out_loss"]["after"]))
    assert results[0] == results[1]


def test_groups_of_the_shortcut_recipe_are_reported_apart():
    questions = open_source(load_recipe(ROOT / "recipes" / "compare" / "av_shortcut.yaml").data.eval)
    groups = [str(questions[i].group) for i in range(100)]
    assert {group.partition(", ")[2] for group in groups} == {"", "told", "misled"}
