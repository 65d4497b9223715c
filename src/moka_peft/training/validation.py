"""Checking a recipe's samples as training would read them, before a model is loaded."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from moka_peft.data import Collator, Sample
from moka_peft.data.collator import IGNORED


@dataclass
class Findings:
    """What the samples of one source hold: tokens by what they are, and what is wrong with which sample."""

    samples: int = 0
    lengths: list[int] = field(default_factory=list)
    tokens: dict[str, int] = field(default_factory=dict)
    problems: list[str] = field(default_factory=list)


def inspect_samples(processor: Any, samples: Sequence[Sample]) -> Findings:
    """Decodes, renders and tokenises every sample by itself; a bad one becomes a problem, not an exception.

    Tokens are counted as text, answer (what carries loss) and one kind per placeholder.
    """
    collator, findings = Collator(processor), Findings()
    kinds = {kind: processor.tokenizer.convert_tokens_to_ids(t) for kind, t in collator.placeholders.items()}
    for position, sample in _read(samples, findings):
        findings.samples += 1
        try:
            if sample.messages[-1]["role"] != "assistant":
                raise ValueError("it ends without an assistant's answer to learn. Add one or remove the sample.")
            _count(collator([sample]), kinds, findings)
        except (OSError, ValueError) as error:
            findings.problems.append(f"sample {position} ({sample.id}): {error}")
    return findings


def _read(samples: Sequence[Sample], findings: Findings) -> Iterator[tuple[int, Sample]]:
    for position in range(len(samples)):
        try:
            yield position, samples[position]
        except (OSError, ValueError) as error:
            findings.problems.append(f"sample {position}: {error}")


def _count(batch: dict[str, Any], kinds: dict[str, int], findings: Findings) -> None:
    ids, answers = batch["input_ids"], batch["labels"] != IGNORED
    counts = {kind: int((ids == token).sum()) for kind, token in kinds.items()}
    counts["answer"] = int(answers.sum())
    counts["text"] = ids.numel() - sum(counts.values())
    for kind, count in counts.items():
        findings.tokens[kind] = findings.tokens.get(kind, 0) + count
    findings.lengths.append(ids.numel())
