"""What an adapted model needs so that a launcher may split it over processes (FSDP, DeepSpeed ZeRO-3)."""

from __future__ import annotations

from typing import Any

from torch import nn


class Factor(nn.Linear):
    """A or B of a layer: the layer around it reads its weight and never calls it, so it must not be split by itself.

    `whole`, an empty child, keeps it so: PEFT's policy for FSDP makes a unit of every module that has a trainable
    weight and no children, and a unit's weight is there only while its own forward runs.
    """

    def __init__(self, in_features: int, out_features: int) -> None:
        super().__init__(in_features, out_features, bias=False)
        self.whole = nn.Identity()


def forget_absent_layers(model: Any) -> None:
    """Takes out of `_no_split_modules` the classes that `model` has no module of.

    accelerate shards by that list and raises at a class that it does not find; a LLaVA's list names the layers of
    CLIP's text encoder, too (transformers 5.23).
    """
    names = getattr(model, "_no_split_modules", None)
    if names:
        present = {type(module).__name__ for module in model.modules()}
        model._no_split_modules = type(names)(name for name in names if name in present)
