"""Recipe keys that contradict each other or what this machine has, as (path of the key, what is wrong)."""

import importlib.util
from typing import Any

import torch

from moka_peft.training.processes import is_sharded

Problem = tuple[tuple[str, ...], str]

PACKAGES = {"tensorboard": "tensorboard", "wandb": "wandb", "trackio": "trackio"}
BITSANDBYTES = ("bnb", "8bit", "paged", "lion")  # in the names of the optimizers that it brings


def run_conflicts(raw: dict[str, Any]) -> list[Problem]:
    """What contradicts itself in how a run trains and is evaluated; raw: unvalidated data of a recipe."""
    training, train = section(raw, "training"), section(raw, "train")
    found: list[Problem] = []
    if training.get("bf16") is True and training.get("fp16") is True:
        found.append((("training", "fp16"), "is set beside `training.bf16`. Keep one of them."))
    if training.get("warmup_ratio") is not None and training.get("warmup_steps"):
        found.append((("training", "warmup_ratio"), "is set beside `training.warmup_steps`. Keep one of them."))
    if training.get("fp16") is True and section(raw, "model").get("dtype") == "float16":
        found.append((("training", "fp16"), "needs weights it can scale: set `model.dtype: float32`."))
    if raw.get("train_projectors") is True and train.get("projectors") is False:
        found.append((("train", "projectors"), "is false beside `train_projectors: true`. Keep one of them."))
    trained = {"projectors": raw.get("train_projectors"), "towers": None}
    for part, key in (("projectors", "projector_learning_rate"), ("towers", "tower_learning_rate")):
        if training.get(key) is not None and not (train.get(part) or trained[part]):
            found.append((("training", key), f"has no effect: the {part} do not train. Set `train.{part}: true`."))
    return found + _evaluation_conflicts(raw, training)


def _evaluation_conflicts(raw: dict[str, Any], training: dict[str, Any]) -> list[Problem]:
    """What `best` and `early_stopping` need: held-out samples, answered on the way, and a metric that is measured."""
    found: list[Problem] = []
    evaluation = section(raw, "evaluation")
    stopping = training.get("early_stopping")
    wanted: dict[tuple[str, ...], Any] = {("training", "best"): training.get("best")}
    if isinstance(stopping, dict):
        wanted["training", "early_stopping", "metric"] = stopping.get("metric")
    for key, metric in wanted.items():
        if metric is None:
            continue
        if section(raw, "data").get("eval") is None:
            found.append((key, "needs held-out samples. Add `data.eval`."))
        if evaluation.get("steps") is None:
            found.append((key, "needs evaluations on the way. Set `evaluation.steps`."))
        if metric not in ("loss", measured := evaluation.get("metric", "exact_match")):
            found.append((key, f"is not measured: expected loss or {measured}, got {metric}. Set `evaluation.metric`."))
    return found


def missing_here(raw: dict[str, Any]) -> list[Problem]:
    """What a recipe asks for that this machine does not have; another machine may."""
    training = section(raw, "training")
    found: list[Problem] = []
    if training.get("fp16") is True and not torch.cuda.is_available():
        found.append((("training", "fp16"), "needs a GPU: the CPU trains in float32 or `bf16`. Remove it."))
    for name in training.get("report_to") or () if isinstance(training.get("report_to"), list) else ():
        if name in PACKAGES and importlib.util.find_spec(PACKAGES[name]) is None:
            found.append((("training", "report_to"), f"needs a package: pip install {PACKAGES[name]}"))
    if is_sharded() and training.get("best") is not None:
        found.append(
            (("training", "best"), "cannot be taken back while the model is sharded. Remove it, or use DDP or ZeRO-2.")
        )
    optimizer = training.get("optimizer")
    if isinstance(optimizer, str) and any(part in optimizer for part in BITSANDBYTES) and "torch" not in optimizer:
        if importlib.util.find_spec("bitsandbytes") is None:
            found.append((("training", "optimizer"), "needs a package: pip install bitsandbytes"))
    return found


def section(raw: dict[str, Any], name: str) -> dict[str, Any]:
    """A section of unvalidated data; empty where it is none."""
    value = raw.get(name)
    return value if isinstance(value, dict) else {}
