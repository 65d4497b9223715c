"""MokA with a loop over the samples in every layer, as the first code of the method has it (arXiv 2506.05191).

Every A is applied to all tokens and masked; the attention runs on one sample and one modality at a time, on the tokens
that its masks choose; then s and B. Autograd keeps what it needs for each of these steps. The weights, the base and the
routing are those of the MokaLinear that it stands in for. One turn per sample.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor, nn

from moka_peft.tuner.layer import MokaLinear


class PerSampleLoop(nn.Module):
    """base(x) + delta(x), [B, S, O] from [B, S, I], with the weights of `moka`'s adapter."""

    def __init__(self, moka: MokaLinear, adapter: str = "default") -> None:
        super().__init__()
        self.moka, self.adapter = moka, adapter

    def forward(self, x: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        moka, adapter = self.moka, self.adapter
        options = moka.options[adapter]
        routing = moka.channel.read(adapter, moka.name, x.device)
        result = moka.base_layer(x, *args, **kwargs)
        dropped = moka.moka_dropout[adapter](x)
        z = []
        for index, modality in enumerate(options.modalities):
            mask = (routing.modality == index).unsqueeze(-1)
            z.append(getattr(moka, f"moka_A_{modality}")[adapter](dropped) * mask)  # [B, S, r]
        media = len(options.modalities) - 1
        scales = options.cross_scale if isinstance(options.cross_scale, tuple) else (options.cross_scale,) * media
        for sample in range(x.shape[0]):
            keys = z[0][sample][routing.is_instruction[sample]]  # [K, r]
            if not len(keys):
                continue
            for index in range(1, media + 1):
                asks = (routing.modality[sample] == index) & (routing.turn[sample] > 0)
                queries = z[index][sample][asks]  # [Q, r]
                weights = torch.softmax(queries @ keys.T / math.sqrt(moka.r[adapter]), -1)
                z[index][sample, asks] = queries + scales[index - 1] * (weights @ keys)
        update: Any = sum(z)
        return result + moka.moka_B[adapter](update) * moka.scaling[adapter]


def loop_instead(model: nn.Module) -> nn.Module:
    """`model` with each of its MokaLinears replaced by a PerSampleLoop, in place."""
    layers = [(name, layer) for name, layer in model.named_modules() if isinstance(layer, MokaLinear)]
    for name, layer in layers:
        parent, _, own = name.rpartition(".")
        setattr(model.get_submodule(parent), own, PerSampleLoop(layer))
    return model
