"""Reads an adapter of the authors' code, with its projectors, and writes it as one of this library."""

import re
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from peft import LoraConfig, PeftConfig
from peft.utils.constants import DUMMY_TARGET_MODULES
from safetensors.torch import save_file
from torch import Tensor

from moka_peft.training.authors.factors import Factors, find_factors, read_factors
from moka_peft.training.authors.folder import EMBEDDINGS, AuthorsFolder, read_folder
from moka_peft.training.authors.forms import FORMS
from moka_peft.training.authors.origin import Origin
from moka_peft.training.authors.projectors import Projectors, find_projector_keys, read_projectors
from moka_peft.training.authors.recipe import check_recipe, read_model_section
from moka_peft.training.authors.their_config import check_targets, read_settings
from moka_peft.training.authors.writing import write_folder
from moka_peft.training.earlier_parts import PREFIX, WEIGHTS
from moka_peft.training.folder import RECIPE
from moka_peft.tuner import MokaConfig

COMPOSITE, PLAIN = "text_model.model", "model"
"""Where the layers are in the composite, and in a language model by itself."""


@dataclass(frozen=True)
class Imported:
    """What an import found and did. form: None for projectors alone. assumed: settings that nothing stated. dropped:
    what has no use here, by name with `*` for numbers, and how often. frozen: how many weights of the base model lay
    in the same file."""

    form: str | None
    files: list[str]
    layers: int
    modules: list[str]
    config: PeftConfig
    projectors: list[str]
    assumed: dict[str, float]
    dropped: dict[str, int]
    frozen: int


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
    whose section `model` builds the base model, for `moka generate`. The settings are for a folder without
    adapter_config.json. Raises, before anything is written, FileNotFoundError or ValueError where the source is not
    whole, not known, or has no counterpart here, and where `target` holds anything else.
    """
    found = read_folder(Path(source))
    factors = read_factors(found.weights) if found.has_adapter else None
    projectors, embeddings = _read_rest(found)
    given = {"lora_alpha": lora_alpha, "lora_dropout": lora_dropout, "cross_scale": cross_scale}
    settings, assumed = _settings(found, factors, given)
    section = read_model_section(Path(recipe)) if recipe is not None else None
    if section is not None:
        check_recipe(section, projectors)
    config = (MokaConfig if factors else LoraConfig)(
        **settings,
        modules_to_save=sorted(projectors.modules) or None,
        base_model_name_or_path=base or found.config.get("base_model_name_or_path") or None,
        inference_mode=True,
    )
    under = layers_under or (COMPOSITE if projectors.modules else PLAIN)
    weights = _weights(factors, under) | {PREFIX + key: weight for key, weight in projectors.weights.items()}

    def write(folder: Path) -> None:
        copies = {key: weight.clone().contiguous() for key, weight in weights.items()}  # safetensors: no shared memory
        save_file(copies, folder / WEIGHTS, {"format": "pt"})
        config.save_pretrained(str(folder))
        if factors is not None:
            Origin(factors.form, factors.stem, factors.name, projectors.modules, found.config).write(folder)
        if section is not None:
            (folder / RECIPE).write_text(yaml.safe_dump({"model": section}, sort_keys=False), encoding="utf-8")

    write_folder(Path(target), write, source=Path(source), overwrite=overwrite)
    return Imported(
        form=factors.form if factors else None,
        files=found.files,
        layers=factors.layers if factors else 0,
        modules=factors.modules if factors else [],
        config=config,
        projectors=sorted(projectors.modules),
        assumed=assumed,
        dropped=_summed([*(factors.unused if factors else ()), *projectors.for_text, *embeddings]),
        frozen=len(found.frozen),
    )


def _settings(
    found: AuthorsFolder, factors: Factors | None, given: dict[str, float | None]
) -> tuple[dict[str, Any], dict[str, float]]:
    """Keywords of the adapter's config, and those among them that nothing stated; without an adapter, PEFT's config of
    one that adapts no module."""
    if factors is None:
        if wanted := [name for name, value in given.items() if value is not None]:
            raise ValueError(f"`{wanted[0]}` is set, but the source holds projectors alone. Leave it out.")
        return {"target_modules": DUMMY_TARGET_MODULES}, {}
    form = FORMS[factors.form]
    settings, assumed = read_settings(found.config, form, factors.rank, given)
    check_targets(found.config.get("target_modules"), factors.modules)
    return {**settings, "target_modules": factors.modules, "modalities": form.modalities}, assumed


def _read_rest(found: AuthorsFolder) -> tuple[Projectors, list[str]]:
    """The projectors, and keys of embeddings, which stage 1 saved beside them and their stage 2 did not read.

    Raises ValueError for keys that are nothing of these, nor the adapter's.
    """
    embeddings = [key for key in found.weights if EMBEDDINGS.fullmatch(key) and not found.has_adapter]
    known = {*find_factors(found.weights), *find_projector_keys(found.weights), *embeddings}
    if unknown := sorted(set(found.weights) - known):
        raise ValueError(
            f"`source` holds {len(unknown)} weights that are not known: {', '.join(unknown[:3])}. They would be lost, "
            "so nothing is written. Expected factors of the adapter, and projectors."
        )
    return read_projectors(found.weights), embeddings


def _weights(factors: Factors | None, under: str) -> dict[str, Tensor]:
    """The adapter's weights, under the keys of our files."""
    if factors is None:
        return {}
    start = f"{PREFIX}{under}.layers."
    return {f"{start}{path}.{factor}.weight": weight for (path, factor), weight in factors.weights.items()}


def _summed(keys: list[str]) -> dict[str, int]:
    return dict(Counter(re.sub(r"\.\d+\.", ".*.", key) for key in sorted(keys)))
