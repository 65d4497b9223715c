"""Self-attention whose position bias depends on distance alone, and on the query how much of it counts.

    logits[i, j] = q_i . k_j / sqrt(d) + gate(q_i) * bias[bucket(j - i)]
    gate(q) = a * (b * w - 1) + 2,  a and b in (0, 1) from q, w learned per head

The bias is the same in every layer; its gate is each layer's own (WavLM, arXiv 2110.13900, section 3.1). The
published code shifts and scales the logits around the softmax, which changes rounding only.
"""

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from .config import BeatsConfig

GATE_UNITS = 4
"""Linear outputs that are summed to one gate."""


class BeatsAttention(nn.Module):
    """One layer's attention: [N, T, D] -> [N, T, D]. The first layer's also makes the bias of all layers."""

    def __init__(self, config: BeatsConfig, holds_bias: bool):
        super().__init__()
        width, self.heads = config.encoder_embed_dim, config.encoder_attention_heads
        self.dropout, self.max_distance = config.attention_dropout, config.max_distance
        self.k_proj, self.v_proj, self.q_proj, self.out_proj = (nn.Linear(width, width) for _ in range(4))
        self.grep_linear = nn.Linear(width // self.heads, 2 * GATE_UNITS)
        self.grep_a = nn.Parameter(torch.ones(1, self.heads, 1, 1))
        if holds_bias:
            self.relative_attention_bias = nn.Embedding(config.num_buckets, self.heads)

    def forward(self, states: Tensor, bias: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Also returns the position bias [H, T, T], which the first layer makes and all others are given."""
        if bias is None:
            bias = position_bias(self.relative_attention_bias, states.shape[1], self.max_distance)
        query, key, value = (
            proj(states).unflatten(-1, (self.heads, -1)).transpose(1, 2)  # [N, H, T, D / H]
            for proj in (self.q_proj, self.k_proj, self.v_proj)
        )
        mixed = F.scaled_dot_product_attention(
            query,
            key,
            value,
            attn_mask=(self.gate(query) * bias).to(query.dtype),
            dropout_p=self.dropout if self.training else 0.0,
        )
        return self.out_proj(mixed.transpose(1, 2).flatten(2)), bias

    def gate(self, query: Tensor) -> Tensor:
        """How much of the position bias each query takes, between 1 and 2 for `grep_a` 1: [N, H, T, 1]."""
        gates = self.grep_linear(query).unflatten(-1, (2, GATE_UNITS)).sum(-1)
        reset, update = torch.sigmoid(gates).chunk(2, dim=-1)
        return reset * (update * self.grep_a - 1) + 2


def position_bias(embedding: nn.Embedding, length: int, max_distance: int) -> Tensor:
    """The bias of every head for every pair of query and key, before its gate: [H, T, T]."""
    device = embedding.weight.device
    distances = torch.arange(1 - length, length, device=device)
    by_distance = embedding(distance_buckets(distances, embedding.num_embeddings, max_distance))  # [2T - 1, H]
    places = torch.arange(length, device=device)
    return by_distance[places - places[:, None] + length - 1].permute(2, 0, 1)


def distance_buckets(distances: Tensor, num_buckets: int, max_distance: int) -> Tensor:
    """The bucket of each distance, key minus query: keys that follow the query use the upper half.

    Of a half, the lower half has one bucket per distance; the rest grow logarithmically up to `max_distance`
    (T5, arXiv 1910.10683, section 2.1). Computed in float32, as the checkpoints were trained.
    """
    half = num_buckets // 2
    exact = half // 2
    size = distances.abs()
    growth = torch.log(size.clamp(min=exact).float() / exact) / math.log(max_distance / exact)
    coarse = (exact + (growth * (half - exact)).long()).clamp(max=half - 1)
    return torch.where(size < exact, size, coarse) + half * (distances > 0)
