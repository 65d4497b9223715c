"""What a training run is, as data: every key a recipe may have, its type, its range and its default.

Read a recipe with `load_recipe`, which reports every mistake at once with file and line. Nothing below
`training/` sees these classes: `train` flattens them into plain arguments.
"""

import re
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, Field, PositiveFloat, PositiveInt
from transformers.training_args import OptimizerNames

from moka_peft.training.recipe_adapter import Adapter, Count, Share, adapter_conflicts
from moka_peft.training.recipe_conflicts import run_conflicts, section
from moka_peft.training.recipe_data import Data, data_conflicts
from moka_peft.training.recipe_evaluation import Evaluation
from moka_peft.training.recipe_model import Model, Section, model_conflicts


def optimizer_name(name: str) -> str:
    """Checks that the Trainer knows an optimizer of this name."""
    if name not in (known := [optimizer.value for optimizer in OptimizerNames]):
        raise ValueError(f"expected one of the Trainer's optimizers ({', '.join(known[:8])}, ...), got {name}")
    return name


def two_numbers(values: list[float]) -> list[float]:
    """Checks that the decay rates of Adam's two averages are there."""
    if len(values) != 2:
        raise ValueError(f"expected two numbers, got {values}")
    return values


def repository_id(name: str) -> str:
    """Checks that a hub repository is written as the hub writes it."""
    form = r"(?!.*(--|\.\.))[A-Za-z0-9][\w.-]*/\w([\w.-]*\w)?"
    if not re.fullmatch(form, name, re.ASCII) or name.endswith(".git") or len(name) > 96:
        raise ValueError(f"no hub repository: expected `user/name`, got {name}")
    return name


HeldOutMetric = Literal["loss", "exact_match", "contains", "token_f1", "wer"]


class Train(Section):
    """What trains in full beside the adapter, and is saved with it."""

    projectors: bool = False
    towers: bool = False
    embeddings: bool = False


class EarlyStopping(Section):
    """Ends a run when a held-out metric has not got better by more than `min_delta` in `patience` evaluations."""

    metric: HeldOutMetric
    patience: PositiveInt
    min_delta: Annotated[float, Field(ge=0)] = 0.0


class Training(Section):
    """How long and how fast: the settings of the optimizer, the batches and the checkpoints."""

    steps: PositiveInt | None = None
    epochs: PositiveFloat | None = None
    batch_size: PositiveInt = 8
    gradient_accumulation: PositiveInt = 1
    packing: bool = False
    max_length: PositiveInt | None = None
    learning_rate: PositiveFloat = 1e-4
    projector_learning_rate: PositiveFloat | None = None
    tower_learning_rate: PositiveFloat | None = None
    optimizer: Annotated[str, AfterValidator(optimizer_name)] | None = None
    betas: Annotated[list[Share], AfterValidator(two_numbers)] = Field(default_factory=lambda: [0.9, 0.999])
    epsilon: PositiveFloat = 1e-8
    scheduler: Literal["linear", "cosine", "constant", "constant_with_warmup"] = "cosine"
    warmup_steps: Count = 0
    warmup_ratio: Share | None = None
    weight_decay: Annotated[float, Field(ge=0)] = 0.0
    max_grad_norm: Annotated[float, Field(ge=0)] = 1.0
    gradient_checkpointing: bool = False
    bf16: bool = False
    fp16: bool = False
    best: HeldOutMetric | None = None
    early_stopping: EarlyStopping | None = None
    report_to: list[Literal["tensorboard", "wandb", "trackio"]] = Field(default_factory=list)
    save_steps: PositiveInt = 100
    keep_checkpoints: PositiveInt = 2
    num_workers: Count = 0
    num_threads: PositiveInt | None = None
    deterministic: bool | None = None


class Recipe(Section):
    """A whole training run; `load_recipe` reads one from YAML."""

    model: Model
    data: Data
    output_dir: str
    adapter: Adapter = Field(default_factory=Adapter)
    training: Training = Field(default_factory=Training)
    evaluation: Evaluation = Field(default_factory=Evaluation)
    train: Train = Field(default_factory=Train)
    train_projectors: bool = False
    push_to_hub: Annotated[str, AfterValidator(repository_id)] | None = None
    seed: Count = 0
    resume: bool = False
    overwrite: bool = False

    def settings(self) -> dict[str, Any]:
        """What decides the result: everything but where it goes, how an earlier run is treated, and its benchmarks."""
        settings = self.model_dump(
            exclude={"output_dir": True, "resume": True, "overwrite": True, "evaluation": {"benchmarks"}}
        )
        return settings | {"train": {part: part in self.trained_parts() for part in settings["train"]}}

    def trained_parts(self) -> list[str]:
        """The parts that train beside the adapter."""
        chosen = {**self.train.model_dump(), **({"projectors": True} if self.train_projectors else {})}
        return [part for part, trains in chosen.items() if trains]


def conflicts(raw: dict[str, Any]) -> list[tuple[tuple[str, ...], str]]:
    """Finds values that contradict each other, as (path of the key, what is wrong).

    Works on the unvalidated data, so that contradictions are reported together with wrong keys and types.
    """
    found = run_conflicts(raw)
    training = section(raw, "training")
    if training.get("steps") is not None and training.get("epochs") is not None:
        found.append((("training", "epochs"), "is set beside `training.steps`. Keep one of them."))
    if training.get("steps") is None and training.get("epochs") is None:
        found.append((("training",), "has no length: expected `steps` or `epochs`. Set one of them."))
    found += model_conflicts(section(raw, "model")) + adapter_conflicts(raw)
    return found + data_conflicts(raw)
