"""Reads an adapter of the authors' code, with its projectors, and writes it as one of this library."""

import json
import re
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from safetensors.torch import save_file

from moka_peft.training.authors.factors import Factors, find_factors, read_factors
from moka_peft.training.authors.folder import AuthorsFolder, read_folder
from moka_peft.training.authors.forms import FORMS
from moka_peft.training.authors.origin import ORIGIN, Origin
from moka_peft.training.authors.projectors import Projectors, find_projector_keys, read_projectors
from moka_peft.training.authors.recipe import check_recipe, read_model_section
from moka_peft.training.authors.their_config import check_targets, read_settings
from moka_peft.training.authors.writing import write_folder
from moka_peft.training.folder import RECIPE
from moka_peft.tuner import MokaConfig

PREFIX = "base_model.model."
COMPOSITE, PLAIN = "text_model.model", "model"
"""Where the layers are in the composite, and in a language model by itself."""


@dataclass(frozen=True)
class Imported:
    """What an import found and did. assumed: settings that nothing stated. dropped: what has no use here, by name with
    `*` for numbers, and how often. frozen: how many weights of the base model lay in the same file."""

    form: str
    files: list[str]
    layers: int
    modules: list[str]
    config: MokaConfig
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
    """Makes `target` an adapter folder that `PeftModel.from_pretrained` opens on the base model.

    base: the base model's name, for the adapter's config. layers_under: the module of the base model that has
    `layers`; by default the composite's where there are projectors, else a plain language model's. recipe: a YAML file
    whose section `model` builds the base model, for `moka generate`. The settings are for a folder without
    adapter_config.json. Raises, before anything is written, FileNotFoundError or ValueError where the source is not
    whole, not known, or has no counterpart here, and where `target` holds anything else.
    """
    found = read_folder(Path(source))
    factors, projectors = _read(found)
    given = {"lora_alpha": lora_alpha, "lora_dropout": lora_dropout, "cross_scale": cross_scale}
    form = FORMS[factors.form]
    settings, assumed = read_settings(found.config, form, factors.rank, given)
    check_targets(found.config.get("target_modules"), factors.modules)
    section = read_model_section(Path(recipe)) if recipe is not None else None
    if section is not None:
        check_recipe(section, projectors)
    config = MokaConfig(
        **settings,
        target_modules=factors.modules,
        modalities=form.modalities,
        modules_to_save=sorted(projectors.modules) or None,
        base_model_name_or_path=base or found.config.get("base_model_name_or_path") or None,  # pyright: ignore
        inference_mode=True,  # pyright: ignore
    )
    under = layers_under or (COMPOSITE if projectors.modules else PLAIN)
    origin = Origin(factors.form, factors.stem, factors.name, projectors.modules, found.config)

    def write(folder: Path) -> None:
        save_file(_weights(factors, projectors, under), folder / "adapter_model.safetensors", {"format": "pt"})
        config.save_pretrained(str(folder))
        (folder / ORIGIN).write_text(json.dumps(origin.as_dict(), indent=2) + "\n", encoding="utf-8")
        if section is not None:
            (folder / RECIPE).write_text(yaml.safe_dump({"model": section}, sort_keys=False), encoding="utf-8")

    write_folder(Path(target), write, source=Path(source), overwrite=overwrite)
    return Imported(
        form=factors.form,
        files=found.files,
        layers=factors.layers,
        modules=factors.modules,
        config=config,
        projectors=sorted(projectors.modules),
        assumed=assumed,
        dropped=_summed([*factors.unused, *projectors.for_text]),
        frozen=len(found.frozen),
    )


def _read(found: AuthorsFolder) -> tuple[Factors, Projectors]:
    """Both parts of what was read. Raises ValueError for keys that belong to neither."""
    factors = read_factors(found.weights)
    known = {*find_factors(found.weights), *find_projector_keys(found.weights)}
    if unknown := sorted(set(found.weights) - known):
        raise ValueError(
            f"`source` holds {len(unknown)} weights that are not known: {', '.join(unknown[:3])}. They would be lost, "
            "so nothing is written. Expected factors of the adapter, and projectors."
        )
    return factors, read_projectors(found.weights)


def _weights(factors: Factors, projectors: Projectors, under: str) -> dict[str, Any]:
    """All weights, under the keys of our adapter files."""
    weights = {f"{under}.layers.{path}.{factor}.weight": weight for (path, factor), weight in factors.weights.items()}
    return {PREFIX + key: weight.clone().contiguous() for key, weight in (weights | projectors.weights).items()}


def _summed(keys: list[str]) -> dict[str, int]:
    return dict(Counter(re.sub(r"\.\d+\.", ".*.", key) for key in sorted(keys)))
