"""The README.md of a run's folder: what was trained on what, how well it does, and how to load it."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from moka_peft.data import MediaOptions
from moka_peft.training.methods import TITLES
from moka_peft.training.metrics import value_of
from moka_peft.tuner.card import MARK

TEXT = """\
---
{front}---
{mark}
# {name}

{kind} for `{base}`, trained with [moka-peft](https://pypi.org/project/moka-peft).

## How to load

Install `moka-peft` and import it first: without the import, PEFT does not know the adapter.

```python
import moka_peft  # registers the adapter type; needed before loading
from pathlib import Path
from moka_peft.training import load_adapted

model, processor = load_adapted(Path("PATH_TO_THIS_FOLDER"))
```

{by_hand}On the command line:
`moka generate --adapter PATH_TO_THIS_FOLDER --image FILE "QUESTION"`, `moka chat --adapter ...`.

## Data

{data}

## Training

{training}

All settings are in `recipe.yaml`, all numbers in `metrics.json`.

## Results

{results}
"""

BY_HAND = """\
or, with the base opened by hand:

```python
import moka_peft
from peft import PeftModel
{open_base}
model = PeftModel.from_pretrained(base, "PATH_TO_THIS_FOLDER")
```

"""


def write_run_card(folder: Path, recipe: Mapping[str, Any], metrics: Mapping[str, Any], model_class: type) -> None:
    """Writes README.md, over what PEFT writes there; recipe: as plain data; metrics: as in metrics.json; model_class:
    the base model's."""
    adapter, bases = recipe["adapter"], _bases(recipe["model"])
    tags = [*([] if adapter["method"] == "none" else [adapter["method"]]), "multimodal", "moka-peft"]
    front: dict[str, Any] = {"library_name": "peft", "tags": tags}
    if published := [base for base in bases if base != "tiny-avt" and not Path(base).is_absolute()]:
        front["base_model"] = published if len(published) > 1 else published[0]
    text = TEXT.format(
        front=yaml.safe_dump(front, sort_keys=False),
        mark=MARK,
        name=folder.name,
        kind=_kind(adapter["method"]),
        base=" + ".join(bases),
        by_hand=_by_hand(recipe["model"], model_class),
        data="\n".join(f"- {part}: {_inline(source)}" for part, source in _data(recipe["data"])),
        training=_training(recipe, metrics),
        results=_results(recipe, metrics),
    )
    (folder / "README.md").write_text(text, encoding="utf-8")


def _kind(method: str) -> str:
    return "Parts, trained in full," if method == "none" else f"{TITLES[method]} adapter"


def _data(data: Mapping[str, Any]) -> list[tuple[str, Mapping[str, Any]]]:
    """The sources of a run's samples and, where it is not the default, how they were read."""
    sections: list[tuple[str, Mapping[str, Any]]] = []
    for part in ("train", "eval"):
        if isinstance(source := data.get(part), list):
            sections += [(f"{part}, source {place} of {len(source)}", one) for place, one in enumerate(source, 1)]
        elif source:
            sections.append((part, source))
    if data.get("order") == "in_order":
        sections.append(("order of the sources in an epoch", {"order": "in_order"}))
    changed = {key: value for key, value in data["media"].items() if value != getattr(MediaOptions(), key)}
    return [*sections, *([("media", changed)] if changed else [])]


def _bases(model: Mapping[str, Any]) -> list[str]:
    """The names of the base model, or of its parts."""
    parts = [model[part]["name"] for part in ("vision", "audio") if model.get(part)]
    return [model["name"]] if model.get("name") else [model["text"], *parts]


def _by_hand(model: Mapping[str, Any], model_class: type) -> str:
    """How to open the base without this library's recipe; parts with projectors of their own are left to it."""
    if model.get("text") or model.get("start_from"):
        return ""
    return BY_HAND.format(open_base=_open_base(model, model_class))


def _open_base(model: Mapping[str, Any], model_class: type) -> str:
    """Code that opens the base as the run did; its weights were trained on that revision, in that dtype."""
    name = model["name"]
    if name == "tiny-avt":
        return "from moka_peft.composite import load_tiny_avt\n\nbase, processor = load_tiny_avt()"
    package = "moka_peft.composite" if model_class.__module__.startswith("moka_peft") else "transformers"
    options = "".join(f', {key}="{model[key]}"' for key in ("revision", "dtype") if model[key] is not None)
    opened = f'{model_class.__name__}.from_pretrained("{name}"{options})'
    return f"from {package} import {model_class.__name__}\n\nbase = {opened}"


def _training(recipe: Mapping[str, Any], metrics: Mapping[str, Any]) -> str:
    trained = [part for part, trains in recipe["train"].items() if trains]
    if recipe["train_projectors"] and "projectors" not in trained:
        trained.insert(0, "projectors")
    lines = {
        "trained beside the adapter": ", ".join(trained) or "nothing",
        "adapter": _inline(recipe["adapter"]),
        "training": _inline(recipe["training"]),
        "steps": metrics["steps"],
        "parameters trained": f"{metrics['trained_parameters']:,} of {metrics['parameters']:,}",
        "seed": recipe["seed"],
        "processes": metrics["processes"],
    }
    return "\n".join(f"- {name}: {value}" for name, value in lines.items())


def _results(recipe: Mapping[str, Any], metrics: Mapping[str, Any]) -> str:
    """A table of the held-out metric before and after, per group, with 95 % intervals."""
    if not metrics["after"]:
        return "No held-out samples were given."
    metric, best = recipe["evaluation"]["metric"], metrics.get("best")
    rows = [f"| {metric} | samples | before | after | 95 % interval |", "|---|---|---|---|---|"]
    for group, score in metrics["after"].items():
        before = metrics["before"].get(group)
        low, high = score["interval"]
        was = "" if before is None else f"{value_of(before):.3f}"
        rows.append(f"| {group} | {score['total']} | {was} | {value_of(score):.3f} | {low:.3f} to {high:.3f} |")
    loss = metrics["held_out_loss"]
    said = f"Loss per answer token: {_number(loss['before'])} before, {_number(loss['after'])} after."
    chosen = f" The step with the best {best['metric']} is kept: {best['step']}." if best else ""
    return "\n".join(rows) + f"\n\nOne run with seed {recipe['seed']}. {said}{chosen}"


def _inline(values: Mapping[str, Any]) -> str:
    """What is set; 0 is, too."""
    told = {key: value for key, value in values.items() if value is not False and value not in (None, {}, [])}
    return ", ".join(f"`{key}: {value}`" for key, value in told.items())


def _number(value: float | None) -> str:
    return "unknown" if value is None else f"{value:.3f}"
