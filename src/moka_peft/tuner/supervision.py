"""Loss on the instruction that media read: found in `labels`, or in the gradient of a loss computed elsewhere."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from moka_peft.routing import Routing
from moka_peft.routing.facts import attending, has_media

from .channel import RoutingChannel


def without_supervised_instruction(labels: Tensor, routing: Routing) -> Tensor:
    """`labels` with -100 at the instruction of turns with media."""
    if labels.shape != routing.shape or not has_media(routing):
        return labels
    return labels.masked_fill(_read_instruction(routing).to(labels.device), -100)


def check_supervised_instruction(routing: Routing, labels: Tensor) -> None:
    """Raises ValueError where an instruction token that media read has a label."""
    if labels.shape != routing.shape:
        return
    _, _, has_loss = routing.on_host((labels != -100).to(torch.int64))
    count = int((_read_instruction(routing) & (has_loss > 0)).sum())
    if count:
        raise ValueError(_message(count, "`labels` is not -100 there"))


LIKELIHOOD_SHARE = 0.99  # of the size of the gradients


@dataclass(frozen=True, eq=False)
class Watch:
    """What a loss computed outside the model must not do: make the instruction that media read likelier.

    `positions`: "raise" or "ignore" -> [B, positions of the logits] bool, where the next token is such instruction; on
    the CPU, so that the device is not asked how many there are. `next_token`: its id at every position of the logits.
    """

    positions: Mapping[str, Tensor]
    next_token: Tensor

    @classmethod
    def of(cls, channel: RoutingChannel, current: Mapping[str, Routing], ids: Tensor, logits_to_keep: Any) -> Watch:
        """For a training forward on `ids` [B, S] without labels."""
        kept = slice(-logits_to_keep, None) if isinstance(logits_to_keep, int) else logits_to_keep
        positions: dict[str, Tensor] = {}
        for adapter, routing in current.items():
            config = channel.configs[adapter]
            if config.interaction != "none" and has_media(routing):
                read = _shifted(_read_instruction(routing))[:, kept.cpu() if isinstance(kept, Tensor) else kept]
                policy = config.supervised_instruction
                positions[policy] = positions[policy] | read if policy in positions else read
        return cls(positions, _shifted(ids)[:, kept])

    def attach(self, output: Any) -> None:
        """Looks at the gradient of the logits when the backward pass gets there."""
        logits = getattr(output, "logits", output[0] if isinstance(output, tuple) and output else None)
        if not isinstance(logits, Tensor) or not logits.requires_grad or logits.shape[:2] != self.next_token.shape:
            return
        if self.positions:
            logits.register_hook(self.check)

    def check(self, gradient: Tensor) -> Tensor:
        """The gradient of the logits [B, positions, vocabulary], without what is ignored. Raises ValueError."""
        for policy, positions in self.positions.items():
            where = tuple(columns.to(gradient.device) for columns in positions.nonzero(as_tuple=True))
            count = _count_rewarded(gradient[where], self.next_token.to(gradient.device)[where])
            if count and policy == "raise":
                raise ValueError(_message(count, "the loss, computed outside the model, makes them likelier"))
            if count:
                gradient = gradient.masked_fill(positions.to(gradient.device).unsqueeze(-1), 0)
        return gradient


def _count_rewarded(rows: Tensor, tokens: Tensor) -> int:
    """How many of these gradients [N, vocabulary] have a cross-entropy with `tokens` [N] in them; 0 unless all have.

    Through a softmax a gradient sums to zero; where the loss wants the token, that token has most of what is negative
    (a quarter of all the gradient is half of it). "All" is by size: where a token is certain already, little is left.
    Other losses of all positions are left alone: of chosen and rejected answers, say, one makes the same instruction
    less likely.
    """
    classes = rows.shape[1]  # of tokens; fewer where a head sorts tokens into some other classes
    own = rows.gather(1, tokens.clamp(max=classes - 1).unsqueeze(1)).squeeze(1).float()
    own = torch.where(tokens < classes, own, 0)
    if not bool((own < 0).any()):  # as with a loss on answers: without a copy of the rows
        return 0
    size = rows.float().abs().sum(1)
    tolerance = 4 * torch.finfo(rows.dtype).eps + 1e-5
    through_softmax = rows.float().sum(1).abs() <= tolerance * size
    of_likelihood = through_softmax & (own < -size / 4)
    share = torch.where(of_likelihood, size, 0).sum() / size.sum()
    count, all_are = torch.stack([of_likelihood.sum(), share > LIKELIHOOD_SHARE]).tolist()
    return count if all_are else 0


def _shifted(values: Tensor) -> Tensor:
    """Every position's next value [B, S]; zero at the last."""
    return torch.cat([values[:, 1:], torch.zeros_like(values[:, :1])], 1)


def _read_instruction(routing: Routing) -> Tensor:
    """[B, S] bool: instruction tokens that media attend to. On the CPU; in a compiled graph on the routing's device."""
    if not torch.compiler.is_compiling():
        return attending(routing)[1]
    same_turn = routing.turn.unsqueeze(2) == routing.turn.unsqueeze(1)
    return routing.is_instruction & (same_turn & routing.is_media.unsqueeze(1)).any(2)


def _message(count: int, where: str) -> str:
    return (
        f"{count} instruction tokens carry loss ({where}). Media before them attend to them and would hand them to "
        "the positions that predict them: the loss would fall without learning. Use assistant-only or "
        "completion-only loss, or MokaConfig(supervised_instruction='ignore')."
    )
