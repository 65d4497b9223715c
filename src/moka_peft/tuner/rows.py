"""What a layer sees of a forward's tokens, brought to the rows and columns that a routing describes."""

from __future__ import annotations

from torch import Tensor, compiler

from moka_peft.routing import Routing


def as_rows(x: Tensor, routing: Routing, interaction: str, logits_to_keep: int = 0) -> tuple[Tensor, Routing]:
    """x as [N, S, I] and the routing of just those tokens.

    Layers may flatten batch and sequence ([B S, I]), stack residual streams ([N, B, S, I]), or get the last columns
    alone ([B, K, I]): Gemma 4 drops the others, at `logits_to_keep`, in layers that store no keys of their own.
    An x that is none of these comes back as it is. Raises ValueError where a last column needs one that was dropped.
    """
    batch, length = routing.shape
    if x.dim() == 2 and x.shape[0] == batch * length:
        return x.unflatten(0, (batch, length)), routing
    if x.dim() > 3 and x.shape[-3:-1] == routing.shape:
        rows = x.flatten(0, -3)
        return rows, routing.repeated(rows.shape[0] // batch)
    if x.dim() == 3 and (x.shape[0], x.shape[1]) == (batch, logits_to_keep) and logits_to_keep < length:
        kept = routing.last(x.shape[1])
        _check_complete(kept, interaction)
        return x, kept
    return x, routing


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
