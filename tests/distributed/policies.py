"""Sharding by PEFT's own policy, without accelerate: every leaf with a trainable weight would be a unit."""

from __future__ import annotations

from typing import Any

import torch
import torch.distributed as dist
from peft.utils.other import fsdp_auto_wrap_policy
from torch.distributed.fsdp import FullyShardedDataParallel, fully_shard

from .chats import chats_for, collator_for
from .trajectory import adapted


def losses_by_policy(out: str, version: int, steps: int = 4) -> list[float]:
    """The mean loss over both processes of a few steps of SGD; version 0: one process, not split."""
    model: Any = adapted("qwen2_5_vl", "moka", False, {}).train()
    collate, rows = collator_for("qwen2_5_vl", False), chats_for("qwen2_5_vl")
    if version:
        dist.init_process_group("gloo")
    if version == 1:
        policy = fsdp_auto_wrap_policy(model)
        model = FullyShardedDataParallel(
            model, auto_wrap_policy=policy, use_orig_params=True, device_id=torch.device("cpu")
        )
    elif version == 2:
        policy = fsdp_auto_wrap_policy(model)
        for module in reversed(list(model.modules())[1:]):
            if policy(module=module, recurse=False, nonwrapped_numel=0):
                fully_shard(module)
        fully_shard(model)
    optimizer = torch.optim.SGD([p for p in model.parameters() if p.requires_grad], lr=0.01)
    losses, rank = [], dist.get_rank() if version else 0
    for step in range(steps):
        chosen = [4 * step, 4 * step + 2] if rank == 0 else [4 * step + 1, 4 * step + 3]
        batches = [chosen] if version else [[4 * step, 4 * step + 2], [4 * step + 1, 4 * step + 3]]
        parts = [model(**collate([rows[index] for index in batch])).loss for batch in batches]
        loss = sum(parts) / len(parts)
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        mean = loss.detach()
        if version:
            dist.all_reduce(mean)
        losses.append(float(mean) / (2 if version else 1))
    return losses
