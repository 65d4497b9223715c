"""What a training run is, as data: every key a recipe may have, its type, its range and its default.

Read a recipe with `load_recipe`, which reports every mistake at once with file and line. Nothing below
`training/` sees these classes: `train` flattens them into plain arguments.
"""

from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, PositiveFloat, PositiveInt


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
    """Checks that a model written as a path exists; `tiny-avt` and hub ids pass unseen."""
    written_as_path = name.startswith((".", "/", "~")) or name.count("/") > 1
    return existing_folder(name) if written_as_path else name


Share = Annotated[float, Field(ge=0, lt=1)]
Count = Annotated[int, Field(ge=0)]
Modules = list[str] | str | None


class Section(BaseModel):
    """The rules of every part of a recipe: no unknown keys, no silent conversion of types, frozen."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)


class Model(Section):
    """The base model: `tiny-avt` (ships with the package), a folder, or a hub id."""

    name: Annotated[str, AfterValidator(model_name)]
    revision: str | None = None
    dtype: Literal["auto", "float32", "bfloat16", "float16"] = "float32"


class Source(Section):
    """Where samples come from: the generated set `av_digits`, or a JSON / JSON lines file of messages."""

    name: Literal["av_digits"] | None = None
    path: Annotated[str, AfterValidator(existing_file)] | None = None
    split: Literal["train", "test"] | None = None
    size: PositiveInt | None = None
    seed: Count | None = None
    groups: list[str] | None = None


class Data(Section):
    """Training samples, and the held-out ones that are answered before and after."""

    train: Source
    eval: Source | None = None


class Adapter(Section):
    """The adapter: `moka` or `lora`, with the keywords of `MokaConfig` and `LoraConfig`."""

    method: Literal["moka", "lora"] = "moka"
    r: PositiveInt = 8
    lora_alpha: PositiveFloat = 16
    lora_dropout: Share = 0.0
    use_rslora: bool = False
    target_modules: Modules = None
    exclude_modules: Modules = None
    modules_to_save: list[str] | None = None
    rank_pattern: dict[str, PositiveInt] = Field(default_factory=dict)
    alpha_pattern: dict[str, PositiveFloat] = Field(default_factory=dict)
    layers_to_transform: list[Count] | Count | None = None
    layers_pattern: Modules = None
    init_lora_weights: bool | str = True
    bias: Literal["none", "all", "lora_only"] = "none"
    modalities: list[str] | None = None
    cross_scale: float | list[float] = 1.0
    interaction: Literal["cross_attention", "text_query", "mean", "none"] = "cross_attention"
    scale_before_attention: bool = False
    instruction_span: Literal["tokens", "contiguous"] = "tokens"
    supervised_instruction: Literal["raise", "ignore"] = "raise"
    impl: Literal["auto", "eager", "reference"] = "auto"


class Training(Section):
    """How long and how fast: the settings of the optimizer, the batches and the checkpoints."""

    steps: PositiveInt | None = None
    epochs: PositiveFloat | None = None
    batch_size: PositiveInt = 8
    gradient_accumulation: PositiveInt = 1
    learning_rate: PositiveFloat = 1e-4
    scheduler: Literal["linear", "cosine", "constant", "constant_with_warmup"] = "cosine"
    warmup_steps: Count = 0
    weight_decay: Annotated[float, Field(ge=0)] = 0.0
    max_grad_norm: Annotated[float, Field(ge=0)] = 1.0
    gradient_checkpointing: bool = False
    bf16: bool = False
    save_steps: PositiveInt = 100
    keep_checkpoints: PositiveInt = 2
    num_workers: Count = 0
    num_threads: PositiveInt | None = None
    deterministic: bool | None = None


class Evaluation(Section):
    """How the held-out questions are answered: greedy, in batches, every `steps` if that is set."""

    batch_size: PositiveInt = 64
    max_new_tokens: PositiveInt = 16
    steps: PositiveInt | None = None


class Recipe(Section):
    """A whole training run; `load_recipe` reads one from YAML."""

    model: Model
    data: Data
    output_dir: str
    adapter: Adapter = Field(default_factory=Adapter)
    training: Training = Field(default_factory=Training)
    evaluation: Evaluation = Field(default_factory=Evaluation)
    train_projectors: bool = False
    seed: Count = 0
    resume: bool = False
    overwrite: bool = False

    def settings(self) -> dict[str, Any]:
        """What decides the result: everything but where it goes and how an earlier run is treated."""
        return self.model_dump(exclude={"output_dir", "resume", "overwrite"})


def conflicts(raw: dict[str, Any]) -> list[tuple[tuple[str, ...], str]]:
    """Finds values that contradict each other, as (path of the key, what is wrong).

    Works on the unvalidated data, so that contradictions are reported together with wrong keys and types.
    """
    found = []
    training, adapter = _section(raw, "training"), _section(raw, "adapter")
    if training.get("steps") is not None and training.get("epochs") is not None:
        found.append((("training", "epochs"), "is set beside `training.steps`. Keep one of them."))
    if training.get("steps") is None and training.get("epochs") is None:
        found.append((("training",), "has no length: expected `steps` or `epochs`. Set one of them."))
    if adapter.get("method") == "lora":
        for key in sorted(set(adapter) & MOKA_ONLY):
            found.append((("adapter", key), "has no meaning for `method: lora`. Remove it or use `moka`."))
    for part, source in _section(raw, "data").items():
        if isinstance(source, dict) and ("name" in source) == ("path" in source):
            found.append((("data", part), "names no single source: expected either `name` or `path`."))
        elif isinstance(source, dict) and "path" in source:
            for key in sorted(set(source) & {"split", "size", "seed", "groups"}):
                found.append((("data", part, key), "has no meaning for a file of samples. Remove it."))
    return found


MOKA_ONLY = {
    "modalities", "cross_scale", "interaction", "scale_before_attention", "instruction_span",
    "supervised_instruction", "impl",
}  # fmt: skip


def _section(raw: dict[str, Any], name: str) -> dict[str, Any]:
    value = raw.get(name)
    return value if isinstance(value, dict) else {}
