"""Reads a checkpoint of the authors' code and writes it as an adapter of this library."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from peft import LoraConfig, PeftConfig
from peft.utils.constants import DUMMY_TARGET_MODULES
from safetensors.torch import save_file
from torch import Tensor

from moka_peft.training.authors.checkpoint import Checkpoint, read_checkpoint
from moka_peft.training.authors.forms import FORMS
from moka_peft.training.authors.origin import Origin
from moka_peft.training.authors.recipe import check_recipe, read_media_section, read_model_section
from moka_peft.training.authors.their_config import check_targets, read_settings
from moka_peft.training.authors.writing import write_folder
from moka_peft.training.earlier_parts import PREFIX, WEIGHTS
from moka_peft.training.folder import RECIPE
from moka_peft.tuner import MokaConfig

COMPOSITE, PLAIN = "text_model.model", "model"
"""Where the layers are in the composite, and in a language model by itself."""


@dataclass(frozen=True)
class Imported:
    """What an import read and wrote. assumed: settings that nothing stated, at the released scripts' values."""

    checkpoint: Checkpoint
    config: PeftConfig
    assumed: dict[str, float]


def import_adapter(
    source: str | Path,
    target: str | Path,
    *,
    base: str | None = None,
    layers_under: str | None = None,
    recipe: str | Path | None = None,
    lora_alpha: float | None = None,
    lora_dropout: float | None = None,
    cross_scale: float | None = None,
    overwrite: bool = False,
) -> Imported:
    """Makes `target` an adapter folder that `PeftModel.from_pretrained` opens on the base model; of stage 1's
    projectors one that a recipe's `model.start_from` takes.

    base: the base model's name, for the adapter's config. layers_under: the module of the base model that has
    `layers`; by default the composite's where there are projectors, else a plain language model's. recipe: a YAML file
    whose section `model` builds the base model, for `moka generate`, and whose `data.media` says how that reads media.
    The settings are for a folder without adapter_config.json. Raises, before anything is written, FileNotFoundError or
    ValueError where the source is not whole, not known, or has no counterpart here, and where `target` holds anything
    else.
    """
    checkpoint = read_checkpoint(Path(source))
    given = {"lora_alpha": lora_alpha, "lora_dropout": lora_dropout, "cross_scale": cross_scale}
    config, assumed = _config(checkpoint, given, base)
    section = read_model_section(Path(recipe)) if recipe is not None else None
    media = read_media_section(Path(recipe)) if recipe is not None else {}
    if section is not None:
        check_recipe(section, checkpoint.projectors)
    weights = _weights(checkpoint, layers_under or (COMPOSITE if checkpoint.projectors.modules else PLAIN))

    def write(folder: Path) -> None:
        save_file(weights, folder / WEIGHTS, {"format": "pt"})
        config.save_pretrained(str(folder))
        _note_origin(checkpoint, folder)
        if section is not None:
            (folder / RECIPE).write_text(yaml.safe_dump({"model": section, **media}, sort_keys=False), encoding="utf-8")

    write_folder(Path(target), write, source=Path(source), overwrite=overwrite)
    return Imported(checkpoint, config, assumed)


def _config(
    checkpoint: Checkpoint, given: Mapping[str, float | None], base: str | None
) -> tuple[PeftConfig, dict[str, float]]:
    """The adapter's config, and its settings that nothing stated; for projectors alone PEFT's, that adapts nothing."""
    factors, theirs = checkpoint.factors, checkpoint.found.config
    common: dict[str, Any] = {
        "modules_to_save": checkpoint.modules_to_save or None,
        "base_model_name_or_path": base or theirs.get("base_model_name_or_path") or None,
        "inference_mode": True,
    }
    if factors is None:
        if wanted := [name for name, value in given.items() if value is not None]:
            raise ValueError(f"`{wanted[0]}` is set, but the source holds projectors alone. Leave it out.")
        return LoraConfig(target_modules=DUMMY_TARGET_MODULES, **common), {}
    form = FORMS[factors.form]
    settings, assumed = read_settings(theirs, form, factors.rank, given)
    check_targets(theirs.get("target_modules"), factors.modules)
    return MokaConfig(**settings, target_modules=factors.modules, modalities=form.modalities, **common), assumed


def _weights(checkpoint: Checkpoint, under: str) -> dict[str, Tensor]:
    """All weights under the keys of our files, each with memory of its own, as safetensors wants them."""
    factors = checkpoint.factors.weights if checkpoint.factors else {}
    weights = {f"{under}.layers.{path}.{factor}.weight": weight for (path, factor), weight in factors.items()}
    weights |= checkpoint.projectors.weights
    return {PREFIX + key: weight.clone().contiguous() for key, weight in weights.items()}


def _note_origin(checkpoint: Checkpoint, folder: Path) -> None:
    if (factors := checkpoint.factors) is not None:
        modules = checkpoint.projectors.modules
        Origin(factors.form, factors.stem, factors.name, modules, checkpoint.found.config).write(folder)
