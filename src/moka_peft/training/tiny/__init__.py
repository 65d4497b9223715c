"""The same run at the size of a laptop: `moka train RECIPE --tiny`."""

from moka_peft.training.tiny.places import tiny_run
from moka_peft.training.tiny.recipe import shrink_recipe

__all__ = ["shrink_recipe", "tiny_run"]
