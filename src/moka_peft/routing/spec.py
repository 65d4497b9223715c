"""RoutingSpec: how a model's token ids tell modality and turn."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field
from functools import cached_property
from typing import Any

Sequence_ = tuple[int, ...]
SkipItem = int | Sequence_ | tuple[Sequence_, Sequence_] | tuple[Sequence_, Sequence_, int]


@dataclass(frozen=True)
class RoutingSpec:
    """The token ids by which `route` reads a chat: media placeholders, and where user turns open and close.

    `placeholders`: modality name -> ids of its placeholder tokens, e.g. {"visual": (151655, 151656)}.
    `user_open`, `user_close`: every token sequence that opens or closes a user turn.
    `skip`: text inside a user turn that is not instruction: an id (a media marker), a sequence of ids (a caption),
    a pair of sequences (everything from the first to the second, e.g. a system block), or a pair and the most tokens
    that it may cover (a caption with a number, e.g. "Picture 12: ").
    `answer_start`: for templates without a close: the sequences that start the answer.
    `template`: where the spec came from, for messages.

    Raises ValueError on empty or overlapping parts. Written to and read from `adapter_config.json`.
    """

    placeholders: Mapping[str, tuple[int, ...]]
    user_open: tuple[Sequence_, ...] = ()
    user_close: tuple[Sequence_, ...] = ()
    skip: tuple[SkipItem, ...] = ()
    answer_start: tuple[Sequence_, ...] = ()
    template: str = field(default="", compare=False)

    def __post_init__(self) -> None:
        placeholders = {name: _ids(ids, f"placeholders[{name!r}]") for name, ids in dict(self.placeholders).items()}
        object.__setattr__(self, "placeholders", placeholders)
        for name in ("user_open", "user_close", "answer_start"):
            sequences = tuple(_ids(sequence, name) for sequence in getattr(self, name))
            object.__setattr__(self, name, tuple(sorted(set(sequences), key=lambda s: (-len(s), s))))
        object.__setattr__(self, "skip", tuple(_skip_item(item) for item in self.skip))
        self._check_placeholders()

    def _check_placeholders(self) -> None:
        if not self.placeholders or "text" in self.placeholders:
            raise ValueError(
                "`placeholders` of RoutingSpec: expected at least one media modality and never 'text', "
                f"got {list(self.placeholders)}."
            )
        owner: dict[int, str] = {}
        for name, ids in self.placeholders.items():
            for token in ids:
                if token in owner:
                    raise ValueError(
                        f"`placeholders` of RoutingSpec: token id {token} stands for {owner[token]!r} and for {name!r}."
                    )
                owner[token] = name

    @property
    def modalities(self) -> tuple[str, ...]:
        """ "text" and the media modalities, in the order of the integers that `route` writes."""
        return ("text", *self.placeholders)

    @cached_property
    def media_ids(self) -> frozenset[int]:
        """All placeholder ids."""
        return frozenset(token for ids in self.placeholders.values() for token in ids)

    def to_dict(self) -> dict[str, Any]:
        """Plain lists and dicts, as stored in `adapter_config.json`."""
        return asdict(self)

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> RoutingSpec:
        """The inverse of `to_dict`. Raises ValueError on an unknown key."""
        unknown = set(values) - set(cls.__dataclass_fields__)
        if unknown:
            raise ValueError(
                f"`routing` has unknown keys {sorted(unknown)}: expected {list(cls.__dataclass_fields__)}."
            )
        return cls(**values)

    @classmethod
    def from_pretrained(cls, model: Any, processor: Any) -> RoutingSpec:
        """Derives the spec from a model (or its config) and its processor by rendering the chat template.

        Raises ValueError, naming the template, where a rendered span differs from what the spec finds.
        """
        from .probe import spec_from_pretrained

        return spec_from_pretrained(model, processor)


def _ids(values: Any, name: str) -> tuple[int, ...]:
    ids: tuple[Any, ...] = tuple(values) if isinstance(values, Iterable) else (values,)
    if not ids or not all(isinstance(i, int) and not isinstance(i, bool) and i >= 0 for i in ids):
        raise ValueError(f"`{name}` of RoutingSpec: expected token ids (integers >= 0), at least one, got {values!r}.")
    return ids


def _skip_item(item: Any) -> SkipItem:
    if isinstance(item, int):
        return _ids(item, "skip")[0]
    if len(item) in (2, 3) and not any(isinstance(part, int) for part in item[:2]):
        pair = (_ids(item[0], "skip"), _ids(item[1], "skip"))
        return pair if len(item) == 2 else (*pair, _ids(item[2], "skip")[0])
    return _ids(item, "skip")
