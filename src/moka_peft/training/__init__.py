"""From a recipe to a trained adapter: model, data, Trainer, checkpoints and metrics."""

from moka_peft.training.answers import generate_answers
from moka_peft.training.conversation import Conversation
from moka_peft.training.metrics import METRICS, score_answers, wilson_interval
from moka_peft.training.model import load_adapted, load_model, load_processor
from moka_peft.training.reading import open_collator, open_source
from moka_peft.training.recipe import Recipe
from moka_peft.training.recipe_file import RecipeError, load_recipe, write_recipe
from moka_peft.training.run import train
from moka_peft.training.token_loss import TokenAveragedTrainer
from moka_peft.training.trainer import MokaTrainer
from moka_peft.training.validation import Findings, inspect_samples

__all__ = [
    "METRICS",
    "Conversation",
    "Findings",
    "MokaTrainer",
    "Recipe",
    "RecipeError",
    "TokenAveragedTrainer",
    "generate_answers",
    "inspect_samples",
    "load_adapted",
    "load_model",
    "load_processor",
    "load_recipe",
    "open_collator",
    "open_source",
    "score_answers",
    "train",
    "wilson_interval",
    "write_recipe",
]
