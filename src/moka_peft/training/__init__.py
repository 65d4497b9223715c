"""From a recipe to a trained adapter: model, data, Trainer, checkpoints and metrics."""

from moka_peft.training.recipe import Recipe
from moka_peft.training.recipe_file import RecipeError, load_recipe, write_recipe

__all__ = ["Recipe", "RecipeError", "load_recipe", "write_recipe"]
