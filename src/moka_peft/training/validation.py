"""Checking a recipe's samples as training would read them, before a model is loaded."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch.utils.data import DataLoader, Dataset

from moka_peft import RoutingSpec, route
from moka_peft.data import BadSample, Collator, Sample
from moka_peft.data.collator import IGNORED
from moka_peft.data.samples import MEDIA

BATCH = 32  # samples read at once: 5 ms each instead of 34 one by one, most of which is the chat template


@dataclass
class Findings:
    """What the samples of one source hold: tokens by what they are, and what is wrong with which sample.

    positions: of the samples looked at, among `total`. lengths: tokens of each good sample. media: how many, by type.
    tokens: by kind. turns: by turn, 0 for what belongs to none; empty where no routing is known. problems: one line
    for each bad sample, whose positions are `bad`.
    """

    total: int = 0
    positions: list[int] = field(default_factory=list)
    media: dict[str, int] = field(default_factory=dict)
    lengths: list[int] = field(default_factory=list)
    tokens: dict[str, int] = field(default_factory=dict)
    turns: dict[int, int] = field(default_factory=dict)
    problems: list[str] = field(default_factory=list)
    bad: list[int] = field(default_factory=list)

    @property
    def samples(self) -> int:
        """How many samples were looked at."""
        return len(self.positions)

    def add(self, more: "Findings", first: int = 0) -> None:
        """Takes in what a later part of the same samples holds, whose positions are counted from `first` on."""
        self.positions += [first + position for position in more.positions]
        self.bad += [first + position for position in more.bad]
        self.lengths += more.lengths
        self.problems += more.problems
        for own, others in ((self.tokens, more.tokens), (self.turns, more.turns), (self.media, more.media)):
            own |= {key: own.get(key, 0) + count for key, count in others.items()}  # type: ignore[arg-type]

    def all_lengths(self) -> np.ndarray:
        """The length of every sample in order, int32; 0 for a bad one, or one that was not looked at."""
        lengths = np.zeros(self.total, dtype=np.int32)
        lengths[np.setdiff1d(self.positions, self.bad).astype(int)] = self.lengths
        return lengths

    def summary(self) -> dict[str, Any]:
        """All of it in plain numbers, for people and programs; shares are of all tokens."""
        lengths, total = np.array(self.lengths or [0]), max(1, sum(self.tokens.values()))
        return {
            "samples": self.samples,
            "samples_in_all": self.total,
            "bad_samples": len(self.bad),
            "tokens": int(lengths.sum()),
            "length": {
                "min": int(lengths.min()),
                "median": float(np.median(lengths)),
                "mean": float(lengths.mean()),
                "p95": float(np.quantile(lengths, 0.95)),
                "max": int(lengths.max()),
            },
            "media": self.media,
            "share_by_kind": {kind: count / total for kind, count in self.tokens.items()},
            "share_by_turn": {str(turn): count / total for turn, count in sorted(self.turns.items())},
            "problems": self.problems,
        }


def inspect_samples(
    processor: Any,
    samples: Sequence[Sample],
    *,
    collator: Collator | None = None,
    spec: RoutingSpec | None = None,
    limit: int | None = None,
    drawn: int | None = None,
    workers: int = 0,
) -> Findings:
    """Decodes, renders and tokenises every sample; a bad one becomes a problem, not an exception.

    Tokens are counted as text, answer (what carries loss) and one kind per placeholder; with `spec`, by turn too.
    limit: looks at the first samples only; drawn: at so many, drawn at random (the same each time). workers:
    processes that share the work.
    """
    positions: Sequence[int] = range(min(len(samples), limit or len(samples)))
    if drawn is not None and drawn < len(samples):
        positions = np.sort(np.random.default_rng(0).choice(len(samples), drawn, replace=False)).tolist()
    batches = _Batches(collator or Collator(processor), spec, samples, positions)
    findings = Findings(total=len(samples))
    for part in _read(batches, workers):
        findings.add(part)
    return findings


def join_findings(parts: Sequence[Findings]) -> Findings:
    """What several sources hold together, with positions in all of them."""
    joined = Findings()
    for part in parts:
        joined.add(part, first=joined.total)
        joined.total += part.total
    return joined


def _read(batches: "_Batches", workers: int) -> Iterator[Findings]:
    if workers:
        yield from DataLoader(batches, batch_size=None, num_workers=workers)
    else:
        yield from (batches[i] for i in range(len(batches)))


class _Batches(Dataset[Findings]):
    """What each batch of samples holds."""

    def __init__(
        self, collator: Collator, spec: RoutingSpec | None, samples: Sequence[Sample], positions: Sequence[int]
    ):
        self.collator, self.spec, self.samples, self.positions = collator, spec, samples, positions

    def __len__(self) -> int:
        return -(-len(self.positions) // BATCH)

    def __getitem__(self, index: int) -> Findings:
        positions = self.positions[index * BATCH : (index + 1) * BATCH]
        findings = Findings(positions=list(positions))
        try:
            self._inspect([self.samples[position] for position in positions], findings)
        except (OSError, ValueError):
            for position in positions:
                self._inspect_one(position, findings)
        return findings

    def _inspect_one(self, position: int, findings: Findings) -> None:
        name = str(position)
        try:
            sample = self.samples[position]
            name = f"{position} ({sample.id})" if sample.id else name
            self._inspect([sample], findings)
        except (OSError, ValueError) as error:
            findings.problems.append(f"sample {name}: {error}")
            findings.bad.append(position)

    def _inspect(self, samples: Sequence[Sample | BadSample], findings: Findings) -> None:
        """Adds the tokens of a few samples to the findings, or raises what is wrong with one of them."""
        read = [sample for sample in samples if isinstance(sample, Sample)]
        if bad := [sample for sample in samples if isinstance(sample, BadSample)]:
            raise ValueError(bad[0].problem)
        batch = self.collator(read)
        is_token = batch["attention_mask"].bool()
        for kind, count in _count_kinds(self.collator, batch).items():
            findings.tokens[kind] = findings.tokens.get(kind, 0) + count
        if self.spec is not None:
            turns = route(batch["input_ids"], self.spec, batch["attention_mask"]).turn[is_token]
            for turn, count in enumerate(torch.bincount(turns).tolist()):
                findings.turns[turn] = findings.turns.get(turn, 0) + count
        for kind in MEDIA:
            if count := sum(len(sample.media(kind)) for sample in read):
                findings.media[kind] = findings.media.get(kind, 0) + count
        findings.lengths += is_token.sum(-1).tolist()


def _count_kinds(collator: Collator, batch: dict[str, Any]) -> dict[str, int]:
    """Tokens by what they are: each kind of media, answers, and all other text."""
    ids, tokenizer = batch["input_ids"], collator.processor.tokenizer
    counts = {
        kind: int((ids == tokenizer.convert_tokens_to_ids(token)).sum())
        for kind, token in collator.placeholders.items()
    }
    counts["answer"] = int((batch["labels"] != IGNORED).sum())
    counts["text"] = int(batch["attention_mask"].sum()) - sum(counts.values())
    return counts
