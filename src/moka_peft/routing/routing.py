"""Routing: which modality every token is, and which user turn it belongs to."""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from torch import Tensor

PADDING = -1
TEXT = 0


@dataclass(frozen=True, eq=False)
class Routing:
    """Tells every adapted layer which A a token takes and which instruction it attends to.

    `modality` [B, S] int64: -1 padding, 0 text, k >= 1 the k-th name of `modalities`.
    `turn` [B, S] int64: for a media token the user turn it belongs to (0 = none); for a text token the turn
    whose instruction it is part of (0 = not instruction). Padding has turn 0.
    `modalities` names the integers, e.g. ("text", "visual", "audio"); None: the adapter's own order.
    `open_turn` [B] int64: the turn whose close was not seen by the end of the row, 0 where there is none;
    None where that is unknown, as for a routing made by hand.

    Raises ValueError on shapes, dtypes or values that do not fit. Values are read once, here, and never under
    torch.compile.
    """

    modality: Tensor
    turn: Tensor
    modalities: tuple[str, ...] | None = None
    open_turn: Tensor | None = None
    _derived: dict = field(default_factory=dict, init=False, repr=False)

    def __post_init__(self) -> None:
        if self.modalities is not None:
            object.__setattr__(self, "modalities", tuple(self.modalities))
        self._check_form()
        if not torch.compiler.is_compiling() and not self.modality.is_meta:
            self._check_values()

    def _check_form(self) -> None:
        for name in ("modality", "turn"):
            tensor = getattr(self, name)
            if not isinstance(tensor, Tensor) or tensor.dtype != torch.int64 or tensor.dim() != 2:
                got = f"{tensor.dtype} {list(tensor.shape)}" if isinstance(tensor, Tensor) else type(tensor).__name__
                raise ValueError(f"`{name}` of Routing: expected an int64 tensor [batch, sequence], got {got}.")
        if self.modality.shape != self.turn.shape:
            raise ValueError(
                f"`turn` of Routing: expected the shape of `modality` {list(self.modality.shape)}, "
                f"got {list(self.turn.shape)}."
            )
        if self.modality.device != self.turn.device:
            raise ValueError(
                f"`turn` of Routing: expected device {self.modality.device}, as `modality`, got {self.turn.device}."
            )

    def _check_values(self) -> None:
        if self.modality.numel() == 0:
            return
        modality, turn = self.on_host()
        low, high, turn_low = int(modality.min()), int(modality.max()), int(turn.min())
        self._derived.update(has_media=high > TEXT, has_padding=low < TEXT)
        if low < PADDING:
            raise ValueError(f"`modality` of Routing: expected values >= -1 (-1 is padding), got {low}.")
        if self.modalities is not None and high >= len(self.modalities):
            raise ValueError(
                f"`modality` of Routing: expected values below {len(self.modalities)}, "
                f"the number of `modalities` {self.modalities}, got {high}."
            )
        if turn_low < 0:
            raise ValueError(f"`turn` of Routing: expected values >= 0 (0 is none), got {turn_low}.")
        if low < TEXT and bool(turn[modality == PADDING].any()):
            raise ValueError("`turn` of Routing: expected 0 at padding (modality -1), got a turn there.")

    @property
    def shape(self) -> torch.Size:
        """[batch, sequence]"""
        return self.modality.shape

    @property
    def is_media(self) -> Tensor:
        """[B, S] bool: tokens of any modality other than text."""
        return self.modality > TEXT

    @property
    def is_instruction(self) -> Tensor:
        """[B, S] bool: text tokens that are part of some turn's instruction."""
        return (self.modality == TEXT) & (self.turn > 0)

    def to(self, device: torch.device | str) -> Routing:
        """The same routing on `device`; copied once per device, values not read again. One that comes from the CPU
        keeps its host copy, so that a plan can be made of it on any device, "meta" too."""
        if device == self.modality.device:
            return self
        device = torch.device(device)
        if device == self.modality.device:
            return self
        key = ("device", str(device))
        if key not in self._derived:
            moved = self._with(self.modality.to(device), self.turn.to(device))
            if self.modality.device.type == "cpu":
                moved._derived["host"] = (self.modality, self.turn)
            self._derived[key] = moved
        return self._derived[key]

    def on_host(self, *others: Tensor) -> tuple[Tensor, ...]:
        """`modality` and `turn` on the CPU, copied together and once; on the CPU they are the routing's own.

        `others` [B, S] int64 come with them, in the same copy if it is the first. Not for a compiled graph, which
        cannot read its tensors.
        """
        if self.modality.device.type == "cpu":
            return self.modality, self.turn, *(other.cpu() for other in others)
        known = self._derived.get("host", ())
        own = () if known else (self.modality, self.turn)
        if own or others:
            with torch.inference_mode(False):  # a copy made under inference_mode could not be trained with
                tensors = [tensor.to(self.modality.device) for tensor in (*own, *others)]
                known = (*known, *torch.stack(tensors).cpu())
            self._derived["host"] = known[:2]
        return known

    def renamed(self, modalities: tuple[str, ...]) -> Routing:
        """The same routing with its integers in the order of `modalities`, an adapter's own.

        Raises ValueError where a token's modality is none of `modalities`.
        """
        if self.modalities is None or self.modalities == modalities:
            return self
        key = ("renamed", modalities)
        if key not in self._derived:
            self._derived[key] = self._rename(modalities)
        return self._derived[key]

    def _rename(self, modalities: tuple[str, ...]) -> Routing:
        names = self.modalities or ()
        modality = torch.where(self.modality == PADDING, PADDING, TEXT)
        for index, name in enumerate(names):
            is_name = self.modality == index
            if name in modalities:
                modality = torch.where(is_name, modalities.index(name), modality)
            elif not torch.compiler.is_compiling() and bool(is_name.any()):
                raise ValueError(
                    f"`routing` holds tokens of modality {name!r}, but the adapter's modalities are {modalities}. "
                    f"Train the adapter with MokaConfig(modalities=...) that names {name!r}, or leave that media out."
                )
        return self._with(modality, self.turn, modalities)

    def repeated(self, times: int) -> Routing:
        """`times` copies of every row, one whole batch after the other: [times B, S]."""
        if times == 1:
            return self
        key = ("repeated", times)
        if key not in self._derived:
            open_turn = None if self.open_turn is None else self.open_turn.repeat(times)
            tensors = (self.modality.repeat(times, 1), self.turn.repeat(times, 1))
            self._derived[key] = Routing.unchecked(*tensors, self.modalities, open_turn, **self._known())
        return self._derived[key]

    def last(self, columns: int) -> Routing:
        """The last `columns` columns of every row."""
        key = ("last", columns)
        if key not in self._derived:
            kept = (self.modality[:, -columns:], self.turn[:, -columns:])
            absent = {name: False for name, found in self._known().items() if not found}
            self._derived[key] = Routing.unchecked(*kept, self.modalities, self.open_turn, **absent)
        return self._derived[key]

    def _with(self, modality: Tensor, turn: Tensor, modalities: tuple[str, ...] | None = None) -> Routing:
        names = modalities or self.modalities
        return Routing.unchecked(modality, turn, names, self.open_turn, **self._known())

    def _known(self) -> dict[str, bool]:
        return {name: self._derived[name] for name in ("has_media", "has_padding") if name in self._derived}

    @classmethod
    def text(cls, batch: int, length: int, device: torch.device) -> Routing:
        """[batch, length] text that is no turn's instruction, as generated tokens are: nobody has to read it."""
        if torch.compiler.is_compiling():
            zeros = torch.zeros(batch, length, dtype=torch.int64, device=device)
        else:
            with torch.inference_mode(False):  # it outlives the forward that it is made in
                zeros = torch.zeros(batch, length, dtype=torch.int64, device=device)
        return cls.unchecked(zeros, zeros, None, None, has_media=False, has_padding=False)

    @classmethod
    def unchecked(
        cls,
        modality: Tensor,
        turn: Tensor,
        modalities: tuple[str, ...] | None,
        open_turn: Tensor | None,
        **known: bool,
    ) -> Routing:
        """A Routing from parts that are right by construction: nothing is read from the device.

        `known`: has_media and has_padding, where they are known.
        """
        routing = object.__new__(cls)
        names = ("modality", "turn", "modalities", "open_turn", "_derived")
        for name, value in zip(names, (modality, turn, modalities, open_turn, dict(known)), strict=True):
            object.__setattr__(routing, name, value)
        return routing
