"""What is evaluated: a recipe's finished run, an adapter's folder or a base model; known before a model is opened."""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import yaml

from moka_peft.data import Collator, MediaOptions
from moka_peft.training import load_adapted, load_model, load_recipe
from moka_peft.training.folder import RECIPE, is_finished
from moka_peft.training.model import base_of
from moka_peft.training.reading import media_of
from moka_peft.training.recipe_evaluation import Asked, Evaluation

RECIPES = (".yaml", ".yml")
BATCH_SIZE = 8  # where no recipe says how many questions are answered together
PLACES, PLACE_BYTES = 64, 65536  # of a file of weights that are hashed: 4 MB of 5 GB, in which all matrices change


@dataclass(frozen=True)
class Target:
    """A model to evaluate, by its name.

    base: keywords of `load_model`. adapter: its folder, if there is one. out: where its records go unless told.
    evaluation: of its recipe, if it has one.
    """

    name: str
    base: Mapping[str, Any]
    adapter: Path | None
    out: Path
    media: MediaOptions
    evaluation: Evaluation | None = None

    @property
    def label(self) -> str:
        """A name that a folder can have."""
        path = Path(self.name)
        return path.stem if path.suffix in RECIPES else path.name if self.adapter else self.out.name

    @property
    def beside_tiny(self) -> Path:
        """The folder beside which the folder `tiny` of made-up files lies; a tiny run lies in there itself."""
        folder = self.adapter or self.out
        return folder.parent.parent / folder.name if folder.parent.name == "tiny" else folder

    @property
    def tiny_out(self) -> Path:
        """Where records of made-up questions go, which are none of the adapter's; a tiny run's own may lie in it."""
        return self.out if self.out.parent.parent.name == "tiny" else self.out.with_name(f"tiny-{self.out.name}")

    @property
    def batch_size(self) -> int:
        """How many questions are answered together."""
        return self.evaluation.batch_size if self.evaluation else BATCH_SIZE

    @property
    def benchmarks(self) -> dict[str, Asked]:
        """The benchmarks that its recipe names, with their settings."""
        named = self.evaluation.benchmarks if self.evaluation else None
        return named.chosen() if named else {}

    def open(self) -> tuple[Any, Any, Collator]:
        """The model, ready to answer, its processor, and what makes batches for it."""
        model, processor = load_adapted(self.adapter) if self.adapter else load_model(**self.base)
        return model.eval(), processor, Collator(processor, media=self.media)

    @cached_property
    def identity(self) -> dict[str, Any]:
        """Whose records they are: the base model, a hash of the adapter, how media are decoded."""
        weights = {"adapter_sha256": digest(self.adapter)} if self.adapter else {}
        media = {key: value for key, value in vars(self.media).items()}
        here = Path(self.base.get("name") or "")  # a folder's weights may change, a hub id's do not
        base = {"base_sha256": sampled_digest(here)} if (here / "config.json").is_file() else {}
        model = {"base": title(self.base), **base, **weights, "dtype": self.base.get("dtype", "float32")}
        return {"target": self.name, "model": model, "media": media}


def find_target(name: str, *, tiny: bool = False) -> Target:
    """What a name on the command line stands for; opens no model.

    tiny: a recipe stands for its tiny run. Raises FileNotFoundError or ValueError for what cannot be evaluated.
    """
    path = Path(name)
    if path.suffix in RECIPES:
        return _of_recipe(name, tiny)
    if (path / "adapter_config.json").is_file():
        return _of_adapter(name, path, _written(path))
    if path.is_dir() and not (path / "config.json").is_file():
        raise FileNotFoundError(
            f"`target` {name} holds no model: expected adapter_config.json (an adapter) or config.json (a base model). "
            "Give another folder."
        )
    if not path.is_dir() and name != "tiny-avt" and (name.count("/") != 1 or name.startswith((".", "/", "~"))):
        raise FileNotFoundError(
            f"`target` {name} not found: expected a recipe (.yaml), the folder of an adapter or a base model, a hub id "
            "(user/name), or tiny-avt. Correct it."
        )
    base = {
        "name": str(path.absolute()) if path.is_dir() else name,
        "dtype": "float32" if name == "tiny-avt" else "auto",
    }
    label = path.absolute().name if path.is_dir() else name.replace("/", "--")
    return Target(name, base, None, Path("runs/benchmarks") / label, MediaOptions())


def _of_recipe(name: str, tiny: bool) -> Target:
    recipe = load_recipe(name, without_files=True, tiny=tiny)
    folder = Path(recipe.output_dir)
    if not (is_finished(folder) and (folder / "adapter_config.json").is_file()):
        command = f"moka train {name}{' --tiny' if tiny else ''}"
        raise FileNotFoundError(
            f"`target` {name} is not trained: expected a finished run in {folder}, got none. Train it first: {command}"
        )
    return _of_adapter(name, folder, recipe.evaluation)


def _of_adapter(name: str, folder: Path, evaluation: Evaluation | None) -> Target:
    return Target(name, base_of(folder), folder, folder / "benchmarks", media_of(folder), evaluation)


def _written(folder: Path) -> Evaluation | None:
    """The section of the recipe in a run's folder."""
    if not (folder / RECIPE).is_file():
        return None
    written = yaml.safe_load((folder / RECIPE).read_text(encoding="utf-8"))
    return Evaluation.model_validate(written.get("evaluation") or {})


def title(base: Mapping[str, Any]) -> str:
    """What a base model is called: its name, or those of its parts."""
    parts = [base.get("text"), *((base.get(part) or {}).get("name") for part in ("vision", "audio"))]
    return base.get("name") or " + ".join(part for part in parts if part)


def digest(folder: Path) -> str:
    """A hash of an adapter's weights, of those that lie beside them, and of what it does with them; wherever its base
    model lies."""
    config = json.loads((folder / "adapter_config.json").read_text(encoding="utf-8"))
    config.pop("base_model_name_or_path", None)
    found = hashlib.sha256(json.dumps(config, sort_keys=True).encode())
    for path in _weights(folder):
        with path.open("rb") as file:
            found.update(path.name.encode() + hashlib.file_digest(file, "sha256").digest())
    return found.hexdigest()


def sampled_digest(folder: Path) -> str:
    """A hash of a base model's settings and templates, and of places all over its weights, which are too many to read
    whole."""
    found = hashlib.sha256()
    for path in sorted([*folder.glob("*.json"), *folder.glob("*.jinja")]):
        found.update(path.name.encode() + hashlib.sha256(path.read_bytes()).digest())
    for path in _weights(folder):
        size = path.stat().st_size
        found.update(f"{path.name} {size}".encode())
        with path.open("rb") as file:
            for place in range(0, size, max(size // PLACES, PLACE_BYTES)):
                file.seek(place)
                found.update(file.read(PLACE_BYTES))
    return found.hexdigest()


def _weights(folder: Path) -> list[Path]:
    return sorted([*folder.glob("*.safetensors"), *folder.glob("*.bin")])
