"""The routing of just those tokens that a layer sees of a forward."""

from __future__ import annotations

from torch import Tensor, compiler

from moka_peft.routing import Routing


def routing_of(x: Tensor, routing: Routing, interaction: str, logits_to_keep: int = 0) -> Routing:
    """The routing of the tokens of x, in their order, where that of the forward is `routing` [B, S].

    x is [B, S, I], or flattened ([B S, I]), or holds several streams ([N, B, S, I]), or the last columns alone
    ([B, K, I]): Gemma 4 drops the others, at `logits_to_keep`, in layers that store no keys of their own.
    Raises ValueError where it is none of these, or where a last column needs one that was dropped.
    """
    batch, length = routing.shape
    if x.shape[:-1] == routing.shape or (x.dim() == 2 and x.shape[0] == batch * length):
        return routing
    if x.dim() > 3 and x.shape[-3:-1] == routing.shape:
        return routing.repeated(x.shape[:-3].numel())
    if x.dim() == 3 and (x.shape[0], x.shape[1]) == (batch, logits_to_keep) and logits_to_keep < length:
        kept = routing.last(x.shape[1])
        _check_complete(kept, interaction)
        return kept
    raise ValueError(
        f"`routing` describes {[batch, length]} tokens, but the layer got {list(x.shape[:-1])} ([batch, sequence]). "
        "Pass the routing of this very input."
    )


def _check_complete(kept: Routing, interaction: str) -> None:
    if interaction == "none" or compiler.is_compiling():
        return
    key = ("complete", interaction)
    if key not in kept._derived:
        receives = kept.is_instruction if interaction == "text_query" else kept.is_media
        kept._derived[key] = not bool((receives & (kept.turn > 0)).any())
    if not kept._derived[key]:
        raise ValueError(
            f"`logits_to_keep`: the last {kept.shape[1]} tokens hold media or instruction, and this model drops the "
            "tokens before them, which they attend to. Leave logits_to_keep out (0 keeps all)."
        )
