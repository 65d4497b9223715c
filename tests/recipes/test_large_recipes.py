"""The recipes of the models for a GPU fit each other, and what they stand for on a smaller scale."""

from pathlib import Path

from moka_peft.training import Recipe, load_recipe

RECIPES = Path(__file__).parents[2] / "recipes"


def read(name: str) -> Recipe:
    return load_recipe(RECIPES / name, without_files=True)


def test_the_comparison_begins_with_its_stage_1():
    first, second = read("scenarios/avt_large_stage1.yaml"), read("compare/large.yaml")
    assert second.model.start_from == [first.output_dir]
    assert second.model.model_dump(exclude={"start_from"}) == first.model.model_dump(exclude={"start_from"})
    assert first.training.bf16 and second.training.bf16 and first.model.dtype == "bfloat16"


def test_every_sample_comes_once():
    for name in ("scenarios/avt_large_stage1.yaml", "compare/large.yaml"):
        recipe = read(name)
        assert recipe.data.train.size == recipe.training.steps * recipe.training.batch_size


def test_speakers_and_questions_are_those_of_the_small_comparison():
    small, large = read("compare/speech.yaml"), read("compare/large.yaml")
    same = {"name", "scenario", "split", "speakers"}
    for part in ("train", "eval"):
        assert getattr(small.data, part).model_dump(include=same) == getattr(large.data, part).model_dump(include=same)
    assert small.adapter == large.adapter and small.trained_parts() == large.trained_parts()
