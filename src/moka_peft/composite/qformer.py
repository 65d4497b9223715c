"""The Q-Former projector: learned queries read an encoder's features, however many, into a fixed number of embeddings.

The published shape of MokA's projectors (arXiv 2506.05191): BERT-base cut to two layers, cross-attention in both.
"""

import torch
from torch import Tensor, nn
from transformers import Blip2QFormerConfig, Blip2QFormerModel

QUERY_STD = 0.02
"""The standard deviation of fresh queries, BERT's of fresh weights."""


class QFormerProjector(nn.Module):
    """LayerNorm, a BERT-style decoder of queries without text, then Linear, GELU, Linear to the language model's width.

    Each of its layers is self-attention among the queries, cross-attention from them to the features, and a
    feed-forward network, every one with a residual and a LayerNorm behind it. Features [N, T, D_in] ->
    embeddings [N, num_queries, D_out]. Raises ValueError for a size that is not positive or not a multiple of the
    heads.
    """

    def __init__(
        self,
        width_in: int,
        width_out: int,
        *,
        num_queries: int = 32,
        num_layers: int = 2,
        hidden_size: int = 768,
        num_attention_heads: int = 12,
        intermediate_size: int = 3072,
        dropout: float = 0.1,
    ):
        super().__init__()
        _check_sizes(num_queries, num_layers, hidden_size, num_attention_heads)
        config = Blip2QFormerConfig(
            hidden_size=hidden_size,
            num_hidden_layers=num_layers,
            num_attention_heads=num_attention_heads,
            intermediate_size=intermediate_size,
            hidden_dropout_prob=dropout,
            attention_probs_dropout_prob=dropout,
            cross_attention_frequency=1,
            encoder_hidden_size=width_in,
        )
        self.norm = nn.LayerNorm(width_in)
        self.queries = nn.Parameter(torch.empty(1, num_queries, hidden_size).normal_(std=QUERY_STD))
        self.qformer = Blip2QFormerModel(config)
        self.proj = nn.Sequential(nn.Linear(hidden_size, width_out), nn.GELU(), nn.Linear(width_out, width_out))

    def forward(self, features: Tensor) -> Tensor:
        queries = self.queries.expand(features.shape[0], -1, -1)
        read = self.qformer(query_embeds=queries, encoder_hidden_states=self.norm(features)).last_hidden_state
        return self.proj(read)  # [N, num_queries, D_out]


def _check_sizes(num_queries: int, num_layers: int, hidden_size: int, num_attention_heads: int) -> None:
    """Raises ValueError where the sizes make no Q-Former."""
    sizes = {"num_queries": num_queries, "num_layers": num_layers, "num_attention_heads": num_attention_heads}
    for name, size in sizes.items():
        if size < 1:
            raise ValueError(f"`{name}` of the Q-Former is wrong: expected 1 or more, got {size}. Raise it.")
    if hidden_size < 1 or hidden_size % num_attention_heads:
        raise ValueError(
            f"`hidden_size` of the Q-Former is wrong: expected a multiple of its {num_attention_heads} heads, "
            f"got {hidden_size}. Change one of them."
        )
