from pathlib import Path

import pytest

from moka_peft.training import Recipe, RecipeError, load_recipe, write_recipe
from moka_peft.training.recipe_file import changed_recipe

RECIPES = sorted((Path(__file__).parents[2] / "recipes").glob("*.yaml"))
VALID = """\
model: {name: tiny-avt}
data:
  train: {name: av_digits}
output_dir: runs/x
training:
  steps: 10
"""


def problems(path: Path, text: str, *overrides: str) -> list[str]:
    path.write_text(text)
    with pytest.raises(RecipeError) as caught:
        load_recipe(path, overrides)
    return [problem.removeprefix(f"{path}:") for problem in caught.value.problems]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "recipe.yaml"


def test_every_mistake_is_reported_with_its_line(path: Path):
    text = """\
model: {name: ./nowhere}
data:
  train: {path: nothere.json}
  evaluation: {name: av_digits}
adapter:
  r: 0
  method: lora
  interaction: mean
training:
  learning_rat: 1e-3
  steps: many
learning_rate: 3
"""
    assert problems(path, text, "training.batch_size=big", "nonsense") == [
        "command line: `nonsense` is no setting: expected `section.key=value`.",
        "1: `output_dir` is missing. Add it to the recipe.",
        "1: `model.name` is wrong: no such folder: ./nowhere (relative paths start at the current folder).",
        "3: `data.train.path` is wrong: no such file: nothere.json (relative paths start at the current folder).",
        "4: `data.evaluation` is not a recipe key. Did you mean `data.eval`?",
        "6: `adapter.r` is wrong: expected greater than 0, got 0.",
        "8: `adapter.interaction` has no meaning for `method: lora`. Remove it or use `moka`.",
        "10: `training.learning_rat` is not a recipe key. Did you mean `training.learning_rate`?",
        "11: `training.steps` is wrong: expected a valid integer, got 'many'.",
        "12: `learning_rate` is not a recipe key. Did you mean `training.learning_rate`?",
        "command line: training.batch_size=big: `training.batch_size` is wrong: expected a valid integer, got 'big'.",
    ]


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("adapter: {r: '8'}", "`adapter.r` is wrong: expected a valid integer, got '8'."),
        ("adapter: {r: true}", "`adapter.r` is wrong: expected a valid integer, got True."),
        ("adapter: {r: -1}", "`adapter.r` is wrong: expected greater than 0, got -1."),
        ("adapter: {lora_dropout: 1}", "`adapter.lora_dropout` is wrong: expected less than 1, got 1."),
        ("adapter: 3", "`adapter` is wrong: expected a section of keys, got 3."),
        (
            "adapter: {target_modules: 3}",
            "`adapter.target_modules` is wrong: expected a valid list or a valid string, got 3.",
        ),
        (
            "adapter: {rank_pattern: {q_proj: 0}}",
            "`adapter.rank_pattern.q_proj` is wrong: expected greater than 0, got 0.",
        ),
        ("seed: 1\nseed: 2", "`seed` is written twice. Keep one of them."),
    ],
)
def test_a_wrong_value_says_what_was_expected(path: Path, line: str, message: str):
    [problem] = problems(path, VALID + line)
    assert problem.partition(": ")[2] == message


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            VALID.replace("  steps: 10", "  steps: 10\n  epochs: 1.0"),
            "7: `training.epochs` is set beside `training.steps`",
        ),
        (VALID.replace("steps: 10", "seeds: 1"), "5: `training` has no length"),
        (VALID.replace("name: av_digits", "split: test"), "3: `data.train` names no single source"),
        (VALID.replace("{name: av_digits}", "{path: recipe.yaml, size: 3}"), "3: `data.train.size` has no meaning"),
        ("model: [", "1: not valid YAML: "),
        ("- 1", "1: not a recipe"),
    ],
)
def test_contradictions_are_found(path: Path, text: str, message: str):
    assert any(problem.startswith(message) for problem in problems(path, text))


def test_a_recipe_that_is_no_file(tmp_path: Path):
    with pytest.raises(RecipeError, match="nothing.yaml: the recipe cannot be read: No such file or directory"):
        load_recipe(tmp_path / "nothing.yaml")


def test_overrides_are_read_as_yaml(path: Path):
    path.write_text(VALID)
    recipe = load_recipe(path, ["training.learning_rate=2e-3", "adapter.target_modules=[q_proj]", "resume=true"])
    assert recipe.training.learning_rate == 2e-3
    assert recipe.adapter.target_modules == ["q_proj"]
    assert recipe.resume


def test_a_written_recipe_reads_back_the_same(path: Path, tmp_path: Path):
    path.write_text(VALID)
    recipe = load_recipe(path, ["adapter.cross_scale=[0.5, 2.0]"])
    write_recipe(recipe, tmp_path / "again.yaml")
    assert load_recipe(tmp_path / "again.yaml") == recipe


@pytest.mark.parametrize("settings", [["train_projectors=true"], ["adapter.method=lora"]])
def test_a_written_recipe_is_the_same_run(path: Path, tmp_path: Path, settings: list[str]):
    path.write_text(VALID)
    recipe = load_recipe(path, settings)
    write_recipe(recipe, tmp_path / "again.yaml")
    assert load_recipe(tmp_path / "again.yaml").settings() == recipe.settings()


@pytest.mark.parametrize("recipe", RECIPES, ids=lambda path: path.name)
def test_every_recipe_we_ship_loads(recipe: Path):
    assert isinstance(load_recipe(recipe), Recipe)
    assert recipe.read_text().startswith(f"# moka train recipes/{recipe.name}\n")


def test_recipes_are_there():
    assert RECIPES


def test_a_misspelt_section_on_the_command_line_is_named(tmp_path):
    (tmp_path / "recipe.yaml").write_text(VALID)
    with pytest.raises(RecipeError) as caught:
        load_recipe(tmp_path / "recipe.yaml", ["trainig.steps=3"])
    assert caught.value.problems == [
        "command line: trainig.steps=3: `trainig` is not a recipe key. Did you mean `training`?"
    ]


def test_a_changed_recipe_is_the_one_with_other_values(path: Path):
    path.write_text(VALID + "train_projectors: true\n")
    recipe = load_recipe(path)
    assert changed_recipe(recipe, {}, "here").settings() == recipe.settings()
    changed = changed_recipe(recipe, {"adapter": {"method": "lora"}, "adapter.r": 3, "training.steps": 2}, "here")
    assert (
        changed.settings() == load_recipe(path, ["adapter.method=lora", "adapter.r=3", "training.steps=2"]).settings()
    )


def test_what_is_wrong_with_a_changed_recipe_has_its_place(path: Path):
    path.write_text(VALID)
    with pytest.raises(RecipeError) as caught:
        changed_recipe(load_recipe(path), {"adapter.r": 0, "training.step": 1, "seed.x": 2}, "here")
    assert [problem.partition(" ")[0] for problem in caught.value.problems] == ["here:"] * 3
    assert "`seed.x` leads to no key" in caught.value.problems[0]
