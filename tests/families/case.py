"""One family in the behaviour matrix: its base, adapted copies of it, and what they make of rows."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from peft import PeftModel, get_peft_model
from torch import Tensor, nn
from transformers import PreTrainedModel

from moka_peft import MokaConfig
from moka_peft.tuner import MokaLinear

from .layout import Family, Tensors


@dataclass(frozen=True)
class Case:
    """A family, built once; every test adapts a copy."""

    family: Family

    @cached_property
    def base(self) -> PreTrainedModel:
        """Frozen, as under an adapter: whether weights need a gradient decides which convolution kernel runs."""
        return self.family.build().requires_grad_(False)

    def fresh_base(self) -> PreTrainedModel:
        return copy.deepcopy(self.base)

    def adapted(self, model: nn.Module | None = None, **options: Any) -> PeftModel:
        """A copy of the base (or `model`) with an adapter whose delta is as large as what it adds to."""
        config = MokaConfig(**{"r": 4, "lora_alpha": 8, "routing": self.family.spec, **options})
        adapted = get_peft_model(model if model is not None else self.fresh_base(), config).eval()
        generator = torch.Generator().manual_seed(1)
        for name, parameter in adapted.named_parameters():
            if "moka_" in name:
                parameter.data = torch.randn(parameter.shape, generator=generator) * 0.2
        return adapted

    def run(self, model: nn.Module) -> Any:
        """The module of `model` that is called: the model, or the part of it that has the forward."""
        root = model.get_base_model() if isinstance(model, PeftModel) else model
        return root.get_submodule(self.family.part)

    def logits(self, model: nn.Module, rows: Sequence[str], **options: Any) -> list[Tensor]:
        """Logits [S, V] of each row, without padding."""
        inputs = self.family.inputs(rows, **options)
        with torch.no_grad():
            logits = self.run(model)(**inputs).logits
        return [row[mask.bool()] for row, mask in zip(logits, inputs["attention_mask"], strict=True)]

    @property
    def media_rows(self) -> list[str]:
        """A row with each medium before and in a second turn, and no medium of another kind."""
        return [f"x{letter}y|pp|q{letter}z" for letter in self.family.media]

    @property
    def batches(self) -> list[list[str]]:
        """Batches that together hold every medium, rows without media and rows of other lengths."""
        others = ["qw", "xyz|pp|q"]
        if self.family.together:
            return [[*self.media_rows, *others]]
        return [[row, *others] for row in self.media_rows]

    @property
    def modality(self) -> dict[str, str]:
        """Letter of a medium -> its modality."""
        return {letter: "audio" if letter == "a" else "visual" for letter in self.family.media}

    def layers(self, model: nn.Module) -> dict[str, MokaLinear]:
        return {name: layer for name, layer in self.run(model).named_modules() if isinstance(layer, MokaLinear)}

    def first_delta(self, model: PeftModel, row: str) -> Tensor:
        """What the adapter adds in the first layer at the media tokens of `row`: [media, O]."""
        seen: list[Tensor] = []
        layer = next(iter(self.layers(model).values()))
        handle = layer.register_forward_hook(lambda module, args, out: seen.append(out - module.base_layer(args[0])))
        inputs = self.family.inputs([row])
        with torch.no_grad():
            self.run(model)(**inputs)
        handle.remove()
        placeholders = torch.tensor([t for ids in self.family.spec.placeholders.values() for t in ids])
        return seen[0].reshape(inputs["input_ids"].shape[1], -1)[torch.isin(inputs["input_ids"][0], placeholders)]

    def extended(self, inputs: Tensors, ids: Tensor) -> Tensors:
        """`inputs` of a prompt, for a forward on `ids` that go on after it."""
        more = ids.shape[1] - inputs["input_ids"].shape[1]
        longer = {"input_ids": ids, "attention_mask": nn.functional.pad(inputs["attention_mask"], (0, more), value=1)}
        if self.family.type_ids:
            value = self.family.generated_type
            longer[self.family.type_ids] = nn.functional.pad(inputs[self.family.type_ids], (0, more), value=value)
        return {**inputs, **longer}


def gradients(model: nn.Module) -> dict[str, Tensor | None]:
    """Gradient of every trainable parameter, by name."""
    return {name: p.grad for name, p in model.named_parameters() if p.requires_grad}
