"""Every method's adapter on a tiny LLaMA in float64, its delta far from zero, and a batch for it."""

from __future__ import annotations

import torch
from peft import get_peft_model

from moka_peft.baselines import RIVALS
from moka_peft.training.methods import build_config

METHODS = ["lora", "dora", "moka", *RIVALS]
TARGETS = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]
SIZES = {"r": 3, "lora_alpha": 6, "target_modules": TARGETS, "modalities": ("text", "visual", "audio")}


def adapt(base, method, spec, **settings):
    """A PeftModel in eval mode, its base changed in place to float64."""
    model = get_peft_model(base.double(), build_config(method, {**SIZES, **settings}, routing=spec))
    randomise(model)
    return model.double().eval()


def randomise(model, seed=1):
    generator = torch.Generator().manual_seed(seed)
    for name, weight in model.named_parameters():
        if "magnitude" in name:
            weight.data = weight * (1 + 0.3 * torch.rand(weight.shape, generator=generator))
        elif "lora_" in name or "moka_" in name:
            weight.data = 0.3 * torch.randn(weight.shape, generator=generator).to(weight.dtype)


def padded(rows, side="right"):
    """ids and attention_mask [B, S] of rows [1, length]."""
    width = max(row.shape[1] for row in rows)
    ids = torch.zeros(len(rows), width, dtype=torch.long)
    mask = torch.zeros_like(ids)
    for index, row in enumerate(rows):
        at = slice(0, row.shape[1]) if side == "right" else slice(width - row.shape[1], width)
        ids[index, at], mask[index, at] = row[0], 1
    return {"input_ids": ids, "attention_mask": mask}


def trained_on(rows, answered):
    """A training batch whose last `answered` tokens of each row carry loss."""
    batch = padded(rows)
    labels = torch.full_like(batch["input_ids"], -100)
    for index, row in enumerate(rows):
        labels[index, row.shape[1] - answered : row.shape[1]] = row[0, -answered:]
    return {**batch, "labels": labels}
