"""Writes an adapter of this library as the authors' code reads it."""

import json
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from peft import PeftConfig
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from moka_peft.training.authors.factors import Place, check_complete, check_shapes
from moka_peft.training.authors.forms import FORMS, Form
from moka_peft.training.authors.origin import Origin, origin_of
from moka_peft.training.authors.our_config import form_of, write_settings
from moka_peft.training.authors.projectors import KINDS, check_names, layers_of, names
from moka_peft.training.authors.writing import write_folder
from moka_peft.training.earlier_parts import FILE, PREFIX, WEIGHTS
from moka_peft.tuner import MokaConfig

FACTOR = re.compile(
    r"base_model\.model\.(?P<under>[\w.]+)\.layers\.(?P<path>\d+\.[\w.]+)\.(?P<factor>moka_\w+)\.weight"
)
PROJECTOR = re.compile(rf"base_model\.model\.(?P<module>{'|'.join(KINDS)})\.(?P<rest>.+)")


@dataclass(frozen=True)
class Exported:
    """What an export wrote. unused: how many weights are zeros that their code never reads."""

    form: str
    layers: int
    modules: list[str]
    rank: int
    projectors: list[str]
    unused: int


def export_adapter(
    source: str | Path, target: str | Path, *, form: str | None = None, overwrite: bool = False
) -> Exported:
    """Writes the adapter in `source` to `target`: adapter_model.bin, adapter_config.json and, where there are
    projectors, non_lora_trainables.bin.

    form: "avt" or "vt"; by default the one with the adapter's options. Raises, before anything is written,
    FileNotFoundError or ValueError where the authors' code could not compute what the adapter does, and where `target`
    holds anything else.
    """
    folder = Path(source)
    config, weights = _read(folder)
    name = form_of(config, form)
    places, under = _factors(weights)
    projectors = _projectors(weights)
    check_complete({path for path, _ in places}, set(places), FORMS[name])
    rank = check_shapes(places)
    origin = origin_of(folder, name, is_composite=bool(projectors) or under != "model")
    modules = sorted({path.rpartition(".")[2] for path, _ in places})
    adapter, beside = _their_factors(places, FORMS[name], origin), _their_projectors(projectors, origin)
    settings = write_settings(config, name, modules, origin.config)

    def write(out: Path) -> None:
        torch.save(adapter, out / "adapter_model.bin")
        (out / "adapter_config.json").write_text(json.dumps(settings, indent=2) + "\n", encoding="utf-8")
        if beside:
            torch.save(beside, out / "non_lora_trainables.bin")

    write_folder(Path(target), write, source=folder, overwrite=overwrite)
    layers = len({path.partition(".")[0] for path, _ in places})
    return Exported(name, layers, modules, rank, sorted(projectors), len(adapter) - len(places))


def _read(folder: Path) -> tuple[MokaConfig, dict[str, Tensor]]:
    for name in ("adapter_config.json", WEIGHTS):
        if not (folder / name).is_file():
            raise FileNotFoundError(
                f"`source` is no adapter folder: {folder} has no {name}. Give a finished run's folder."
            )
    config = _whole(folder / "adapter_config.json", lambda _: PeftConfig.from_pretrained(str(folder)))
    if type(config) is not MokaConfig:  # a rival's is one with fewer matrices
        raise ValueError(
            f"`source` is a {config.peft_type} adapter: expected MOKA. Only MokA adapters have the authors' forms."
        )
    weights = _whole(folder / WEIGHTS, load_file)
    kept = _whole(folder / FILE, load_file) if (folder / FILE).is_file() else {}  # projectors that did not train on
    return config, {PREFIX + name: weight for name, weight in kept.items()} | weights


def _whole(file: Path, read: Callable[[Path], Any]) -> Any:
    """What `read` makes of a file. Raises ValueError, naming it, where it is damaged."""
    try:
        return read(file)
    except (SafetensorError, json.JSONDecodeError) as error:
        raise ValueError(f"`source`: {file} cannot be read: {error}. Copy it again.") from error


def _factors(weights: dict[str, Tensor]) -> tuple[dict[Place, Tensor], str]:
    """The adapter's weights by place, and the module that has the layers."""
    matches = {key: match for key in weights if (match := FACTOR.fullmatch(key)) is not None}
    unders = {match["under"] for match in matches.values()}
    if len(unders) != 1:
        found = ", ".join(sorted(unders)) or "none"
        raise ValueError(f"`source`: expected adapted Linears below one list of layers, got {found}. It has no export.")
    return {(match["path"], match["factor"]): weights[key] for key, match in matches.items()}, unders.pop()


def _projectors(weights: dict[str, Tensor]) -> dict[str, dict[str, Tensor]]:
    """The weights of each projector, by names in it. Raises ValueError for weights that are in no adapter."""
    found: dict[str, dict[str, Tensor]] = {}
    stray = []
    for key, weight in weights.items():
        if (match := PROJECTOR.fullmatch(key)) is not None:
            found.setdefault(match["module"], {})[match["rest"]] = weight
        elif not FACTOR.fullmatch(key):
            stray.append(key)
    if stray:
        raise ValueError(
            f"`source` holds {len(stray)} weights that the authors' code has no place for: {', '.join(stray[:3])}. "
            "Only factors and Q-Former projectors can be exported."
        )
    return found


def _their_factors(places: dict[Place, Tensor], form: Form, origin: Origin) -> dict[str, Tensor]:
    theirs = {ours: name for name, ours in form.factors.items()}
    end = f".{origin.name}.weight" if origin.name else ".weight"
    written = {f"{origin.stem}.{path}.{theirs[factor]}{end}": weight for (path, factor), weight in places.items()}
    if form.unused is not None:
        for (path, factor), weight in places.items():
            if factor == "moka_B":
                written[f"{origin.stem}.{path}.{form.unused}{end}"] = torch.zeros_like(weight)
    return dict(sorted(written.items()))


def _their_projectors(projectors: dict[str, dict[str, Tensor]], origin: Origin) -> dict[str, Any]:
    written = {}
    for module, weights in projectors.items():
        if module not in origin.modules:
            raise ValueError(
                f"`source` has a {module}: the form {origin.form!r} has none. Expected {', '.join(origin.modules)}."
            )
        table = names(KINDS[module], layers_of(weights))
        check_names(set(weights), set(table.values()), f"`source`: {module}")
        written |= {
            f"base_model.model.model.{origin.modules[module]}.{old}": weights[new] for old, new in table.items()
        }
    return written
