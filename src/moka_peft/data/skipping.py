"""Goes on where a sample is bad: leaves it out of its batch and writes down which and why."""

import json
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch.utils.data import Subset, get_worker_info

from moka_peft.data.samples import Sample

BLANK = Sample("blank", [{"role": "user", "content": "blank"}, {"role": "assistant", "content": "blank"}])
_IGNORED = -100


@dataclass(frozen=True)
class BadSample:
    """Stands for a sample that could not be read: where it is and what is wrong with it."""

    where: str
    problem: str
    id: str = ""


class SkippingCollator:
    """Wraps a collator: samples that are bad, or that it refuses, are dropped and written down.

    log: a folder, into which each process writes `rank{r}-worker{w}.jsonl`. A batch that is left empty becomes one
    row without loss. An error that no single sample shows is raised.
    """

    def __init__(self, collator: Any, log: str | Path):
        self.collator, self.log = collator, Path(log)

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__") or name == "collator":  # asked while it is unpickled: there is no collator yet
            raise AttributeError(name)
        return getattr(self.collator, name)

    def __call__(self, samples: Sequence[Sample | BadSample]) -> dict[str, Any]:
        batch, bad = self._collate(samples)
        self.write(bad)
        if batch is not None:
            return batch
        batch = self._blank()
        return {**batch, "labels": torch.full_like(batch["labels"], _IGNORED)}

    def _blank(self) -> dict[str, Any]:
        try:
            return self.collator([BLANK])
        except ValueError:  # PaliGemma's processor takes no row without an image
            return self.collator([self.collator.blank("image")])

    def _collate(self, samples: Sequence[Sample | BadSample]) -> tuple[dict[str, Any] | None, list[BadSample]]:
        """The batch of the good samples, None if there is none, and the bad ones."""
        bad = [sample for sample in samples if isinstance(sample, BadSample)]
        read = [sample for sample in samples if isinstance(sample, Sample)]
        try:
            return self.collator(read) if read else None, bad
        except (OSError, ValueError):
            problems = [find_problem(self.collator, sample) for sample in read]
        good = [sample for sample, problem in zip(read, problems, strict=True) if problem is None]
        return self.collator(good) if good else None, bad + [problem for problem in problems if problem]

    def write(self, bad: Sequence[BadSample]) -> None:
        """Adds bad samples to this process's file."""
        if bad:
            self.log.mkdir(parents=True, exist_ok=True)
            worker = get_worker_info()
            name = f"rank{os.environ.get('RANK', '0')}-worker{worker.id if worker else 0}.jsonl"
            with (self.log / name).open("ab+") as file:
                if file.tell() and (file.seek(-1, os.SEEK_END), file.read(1))[1] != b"\n":  # a killed run's last line
                    file.write(b"\n")
                file.writelines(json.dumps(vars(sample)).encode() + b"\n" for sample in bad)


def keep_readable(samples: Sequence[Sample], collator: Any, log: str | Path) -> Sequence[Sample]:
    """Those of the samples that a collator takes, as prompts and with their answers; the others are written down in
    the folder `log`."""
    skipping = SkippingCollator(collator, log)
    kept = []
    for position in range(len(samples)):
        sample: Sample | BadSample = samples[position]
        problem = sample if isinstance(sample, BadSample) else _problem_of_either(collator, sample)
        skipping.write([problem] if problem else [])
        kept += [] if problem else [position]
    chosen: Any = Subset(samples, kept)  # pyright: ignore[reportArgumentType]  # any sequence will do
    return chosen


def _problem_of_either(collator: Any, sample: Sample) -> BadSample | None:
    return find_problem(collator.collate_prompts, sample) or find_problem(collator, sample)


def find_problem(collate: Callable[[list[Sample]], Any], sample: Sample) -> BadSample | None:
    """What a collator has against a sample; None where it takes it."""
    try:
        collate([sample])
    except (OSError, ValueError) as error:
        return BadSample(sample.where or sample.id, str(error), sample.id)
    return None


def _entry(line: str) -> dict[str, Any] | None:
    """One line of a process's file; None for one that was torn when the process was killed."""
    try:
        return json.loads(line)
    except json.JSONDecodeError:
        return None


def merge_skipped(log: str | Path, merged: str | Path) -> list[dict[str, Any]]:
    """Writes what all processes skipped into one file of JSON lines, each sample once, and returns it.

    A line has `id`, `where`, `problem`, and `times`: how often the sample was met, in every epoch,
    in steps that a resumed run does again, and by each process that reads it. No file is
    written where nothing was skipped.
    """
    found: dict[tuple[str, str], dict[str, Any]] = {}
    for path in sorted(Path(log).glob("rank*-worker*.jsonl")):
        with path.open(encoding="utf-8") as file:
            for line in file:
                if (entry := _entry(line)) is None:
                    continue
                seen = found.setdefault((entry["where"], entry["id"]), {**entry, "times": 0})
                seen["times"] += 1
    skipped = sorted(found.values(), key=lambda entry: entry["where"])
    if skipped:
        lines = "".join(json.dumps(entry, ensure_ascii=False) + "\n" for entry in skipped)
        partial = Path(f"{merged}.partial")
        partial.write_text(lines, encoding="utf-8")
        os.replace(partial, merged)
    return skipped
