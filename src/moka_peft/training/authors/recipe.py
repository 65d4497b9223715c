"""The base model that an imported adapter belongs to, as a recipe's section `model`."""

import inspect
from pathlib import Path
from typing import Any

import yaml
from pydantic import ValidationError

from moka_peft.composite.qformer import QFormerProjector
from moka_peft.training.authors.projectors import Projectors, layers_of
from moka_peft.training.recipe_data import Media
from moka_peft.training.recipe_file import RecipeLoader
from moka_peft.training.recipe_model import Model, model_conflicts

PARTS = ("vision", "audio")
BERT_BASE = {"hidden_size": 768, "num_attention_heads": 12}
"""Heads leave no trace in the weights: at this width the authors' have BERT's."""


def read_model_section(path: Path) -> dict[str, Any]:
    """The section `model` of a recipe, checked; without `start_from`, whose projectors the adapter brings itself.

    Raises ValueError where it cannot be read, or is wrong.
    """
    try:
        data = yaml.load(path.read_text(encoding="utf-8"), Loader=RecipeLoader)
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise ValueError(f"`recipe` {path} cannot be read: {error}. Give a YAML file.") from error
    if not isinstance(data, dict) or not isinstance(data.get("model"), dict):
        raise ValueError(f"`recipe` {path} has no section `model`. Give the recipe that builds the base model.")
    section = {key: value for key, value in data["model"].items() if key != "start_from"}
    try:
        model = Model.model_validate(section)
    except ValidationError as error:
        wrong = "; ".join(f"`model.{'.'.join(map(str, e['loc']))}`: {e['msg']}" for e in error.errors())
        raise ValueError(f"`recipe` {path} is wrong: {wrong}.") from error
    if conflicts := model_conflicts(section):
        raise ValueError(f"`recipe` {path}: " + "; ".join(f"`{'.'.join(key)}` {text}" for key, text in conflicts))
    return model.model_dump(exclude_none=True)


def read_media_section(path: Path) -> dict[str, Any]:
    """How a recipe, whose model section was read, decodes media: as its section `data` with nothing else in it."""
    data = yaml.load(path.read_text(encoding="utf-8"), Loader=RecipeLoader).get("data")
    try:
        media = Media.model_validate((data if isinstance(data, dict) else {}).get("media") or {})
    except ValidationError as error:
        raise ValueError(f"`recipe` {path} is wrong: `data.media`: {error.errors()[0]['msg']}.") from error
    return {"data": {"media": media.model_dump(exclude_unset=True)}} if media.model_fields_set else {}


def check_recipe(section: dict[str, Any], projectors: Projectors) -> None:
    """Raises ValueError where the composite that a recipe builds has other projectors than the source."""
    if "text" not in section:
        return
    for part in PARTS:
        name, is_there = f"{part}_projector", part in section
        if is_there != (name in projectors.modules):
            has, holds = ("a", "no") if is_there else ("no", "a")
            raise ValueError(
                f"`recipe` has {has} `model.{part}`, but the source holds {holds} {name}. Take a recipe with the same "
                "parts."
            )
        if is_there:
            _check_sizes(section[part].get("projector") or {}, name, projectors)


def _check_sizes(projector: dict[str, Any], name: str, projectors: Projectors) -> None:
    weights = {k.removeprefix(f"{name}."): w for k, w in projectors.weights.items() if k.startswith(f"{name}.")}
    _, queries, hidden = weights["queries"].shape
    wanted = {
        "type": "qformer",
        "num_queries": queries,
        "num_layers": layers_of(weights),
        "hidden_size": hidden,
        "intermediate_size": weights["qformer.encoder.layer.0.intermediate_query.dense.weight"].shape[0],
    }
    if hidden == BERT_BASE["hidden_size"]:
        wanted["num_attention_heads"] = BERT_BASE["num_attention_heads"]
    defaults = {k: p.default for k, p in inspect.signature(QFormerProjector).parameters.items()}
    for key, value in wanted.items():
        if (got := projector.get(key, defaults.get(key))) != value:
            raise ValueError(
                f"`recipe`: `{key}` of `model.{name.partition('_')[0]}.projector` is {got!r}: expected {value!r}, as "
                "the source's weights are. Correct the recipe."
            )
