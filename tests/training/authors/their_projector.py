"""A projector as the authors' code has it, written anew: BERT's names and arithmetic, in plain torch.

Source: BLIP-2 (arXiv 2301.12597) for the Q-Former, BERT for the layers.
"""

import math

import torch
from torch import Tensor, nn

HIDDEN, HEADS, INNER, QUERIES, WORDS = 8, 2, 12, 3, 11


def module(**children: nn.Module) -> nn.Module:
    holder = nn.Module()
    for name, child in children.items():
        holder.add_module(name, child)
    return holder


def norm(width: int) -> nn.LayerNorm:
    return nn.LayerNorm(width, eps=1e-12)


def attention(width: int) -> nn.Module:
    read = {"query": nn.Linear(HIDDEN, HIDDEN), "key": nn.Linear(width, HIDDEN), "value": nn.Linear(width, HIDDEN)}
    return module(**{"self": module(**read), "output": module(dense=nn.Linear(HIDDEN, HIDDEN), LayerNorm=norm(HIDDEN))})


def layer(width: int, suffixes: tuple[str, ...]) -> nn.Module:
    parts = {"attention": attention(HIDDEN), "crossattention": attention(width)}
    for suffix in suffixes:
        parts[f"intermediate{suffix}"] = module(dense=nn.Linear(HIDDEN, INNER))
        parts[f"output{suffix}"] = module(dense=nn.Linear(INNER, HIDDEN), LayerNorm=norm(HIDDEN))
    return module(**parts)


class TheirProjector(nn.Module):
    """features [N, T, width_in] -> [N, QUERIES, width_out]; kind "visual" or "audio"; suffixes: the feed-forward
    networks of a layer, the last of which serves queries."""

    def __init__(
        self, kind: str, width_in: int, width_out: int, layers: int = 2, suffixes: tuple[str, ...] = ("", "_query")
    ):
        super().__init__()
        self.kind, self.suffix = kind, suffixes[-1]
        embeddings = module(
            word_embeddings=nn.Embedding(WORDS, HIDDEN),
            position_embeddings=nn.Embedding(5, HIDDEN),
            LayerNorm=norm(HIDDEN),
        )
        embeddings.register_buffer("position_ids", torch.arange(5)[None])
        encoder = module(layer=nn.ModuleList([layer(width_in, suffixes) for _ in range(layers)]))
        head = module(dense=nn.Linear(HIDDEN, HIDDEN), LayerNorm=norm(HIDDEN))
        predictions = module(transform=head, decoder=nn.Linear(HIDDEN, WORDS))
        qformer = module(bert=module(embeddings=embeddings, encoder=encoder), cls=module(predictions=predictions))
        self.add_module(f"{kind}_ln", nn.LayerNorm(width_in))
        self.add_module(f"{kind}_Qformer", qformer)
        self.add_module(
            f"{kind}_proj", nn.Sequential(nn.Linear(HIDDEN, width_out), nn.GELU(), nn.Linear(width_out, width_out))
        )
        self.register_parameter(f"{kind}_query_tokens", nn.Parameter(torch.randn(1, QUERIES, HIDDEN)))
        for weight in self.parameters():
            nn.init.normal_(weight, std=0.5)

    def forward(self, features: Tensor) -> Tensor:
        bert = getattr(self, f"{self.kind}_Qformer").bert
        features = getattr(self, f"{self.kind}_ln")(features)
        states = bert.embeddings.LayerNorm(getattr(self, f"{self.kind}_query_tokens")).expand(len(features), -1, -1)
        for block in bert.encoder.layer:
            states = attend(block.attention, states, states)
            states = attend(block.crossattention, states, features)
            inner = nn.functional.gelu(getattr(block, f"intermediate{self.suffix}").dense(states))
            output = getattr(block, f"output{self.suffix}")
            states = output.LayerNorm(output.dense(inner) + states)
        return getattr(self, f"{self.kind}_proj")(states)


def attend(block: nn.Module, states: Tensor, read: Tensor) -> Tensor:
    own = block.self
    query, key, value = (
        part.unflatten(-1, (HEADS, -1)).transpose(1, 2) for part in (own.query(states), own.key(read), own.value(read))
    )
    weights = (query @ key.transpose(-1, -2) / math.sqrt(HIDDEN // HEADS)).softmax(-1)
    mixed = (weights @ value).transpose(1, 2).flatten(2)
    return block.output.LayerNorm(block.output.dense(mixed) + states)
