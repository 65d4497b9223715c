"""The base model of a recipe: a model of its own, or a composite of a language model and encoders."""

from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, PositiveFloat, ValidationInfo


class Section(BaseModel):
    """The rules of every part of a recipe: no unknown keys, no silent conversion of types, frozen."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)


def on_disk(check: Callable[[Any], Any]) -> AfterValidator:
    """A validator that looks for files; it lets everything pass where the context of a validation says
    `without_files`."""

    def validate(value: Any, info: ValidationInfo) -> Any:
        return value if (info.context or {}).get("without_files") else check(value)

    return AfterValidator(validate)


def existing_file(path: str) -> str:
    """Checks that a path in a recipe names a file; relative paths start at the current folder."""
    if not Path(path).is_file():
        raise ValueError(f"no such file: {path} (relative paths start at the current folder)")
    return path


def existing_folder(path: str) -> str:
    """Checks that a path in a recipe names a folder; relative paths start at the current folder."""
    if not Path(path).is_dir():
        raise ValueError(f"no such folder: {path} (relative paths start at the current folder)")
    return path


def model_name(name: str) -> str:
    """Checks that a model written as a path exists, and makes it absolute: the run's folder may be used from anywhere.

    `tiny-avt` and hub ids pass unseen. A name that ends in `.pt` is a checkpoint's file.
    """
    if name.endswith(".pt"):
        return str(Path(existing_file(name)).absolute())
    written_as_path = name.startswith((".", "/", "~")) or name.count("/") > 1
    is_folder = written_as_path or (name != "tiny-avt" and Path(name).is_dir())
    return str(Path(existing_folder(name)).absolute()) if is_folder else name


def template_file(path: str) -> str:
    """Checks that the file of a chat template exists, and makes its path absolute."""
    return str(Path(existing_file(path)).absolute())


def run_folder(path: str) -> str:
    """Checks that a path names the folder of a finished run, and makes it absolute."""
    if not (Path(path) / "adapter_model.safetensors").is_file():
        raise ValueError(f"no finished run: {path} has no adapter_model.safetensors. Run its recipe first")
    return str(Path(path).absolute())


Name = Annotated[str, on_disk(model_name)]


class Encoder(Section):
    """An encoder of a composite: a hub id, a folder or, for BEATs, its `.pt`; how it is read; and its projector.

    processor: where its image processor or feature extractor lies, if not with it. The rest: as in `CompositeConfig`.
    """

    name: Name
    processor: Name | None = None
    feature_layers: list[int] | None = None
    feature_select: Literal["patch", "all"] = "patch"
    projector: dict[str, Any] | None = None


class AudioEncoder(Encoder):
    """An audio encoder; segment_seconds: the length that recordings are cut into."""

    segment_seconds: PositiveFloat | None = None


class Model(Section):
    """The base model: `name`, or the parts of a composite.

    name: `tiny-avt` (ships with the package), a folder, or a hub id. text: a language model, with `vision`, `audio` or
    both; its tokenizer and chat template, if they are not with it (a file). start_from: folders of earlier runs, whose
    fully trained parts (projectors, towers, embeddings) the model begins with.
    """

    name: Name | None = None
    revision: str | None = None
    text: Name | None = None
    vision: Encoder | None = None
    audio: AudioEncoder | None = None
    tokenizer: Name | None = None
    chat_template: Annotated[str, on_disk(template_file)] | None = None
    start_from: list[Annotated[str, on_disk(run_folder)]] | None = None
    dtype: Literal["auto", "float32", "bfloat16", "float16"] = "float32"

    @property
    def title(self) -> str:
        """What the model is called: its name, or those of its parts."""
        parts = [self.text, *(part.name for part in (self.vision, self.audio) if part is not None)]
        return self.name or " + ".join(part for part in parts if part)


COMPOSITE_ONLY = ("vision", "audio", "tokenizer", "chat_template")


def model_conflicts(model: dict[str, Any]) -> list[tuple[tuple[str, ...], str]]:
    """What contradicts itself in a section `model` of unvalidated data, as (path of the key, what is wrong)."""
    given = {key for key, value in model.items() if value is not None}
    found: list[tuple[tuple[str, ...], str]] = []
    if len(given & {"name", "text"}) != 1:
        found.append((("model",), "names no single model: expected `name`, or `text` with `vision` or `audio`."))
    elif "text" in given:
        if not given & {"vision", "audio"}:
            found.append((("model", "text"), "stands alone: expected `vision`, `audio` or both beside it. Add one."))
        if "revision" in given:
            found.append((("model", "revision"), "has no meaning beside `text`. Download that revision to a folder."))
    else:
        keys = [key for key in COMPOSITE_ONLY if key in given]
        found += [(("model", key), "has no meaning beside `name`. Remove it, or name a `text` model.") for key in keys]
    return found
