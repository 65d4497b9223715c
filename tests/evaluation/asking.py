"""A made-up POPE, a tiny untrained model that is asked it, and processes that ask it and may die."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from rich.console import Console

from moka_peft.composite import tiny_avt_processor
from moka_peft.data import Collator
from moka_peft.evaluation import BENCHMARKS, Record, parts
from moka_peft.evaluation.run import evaluate
from moka_peft.evaluation.task import Task
from moka_peft.training.processes import process_group, rank

from ..distributed.chats import build_base

QUESTIONS, BATCH_SIZE = 11, 2
BATCHES = 6


def write_pope(folder: Path) -> Path:
    """Questions of different lengths about pictures of noise."""
    (folder / "val2014").mkdir(parents=True)
    noise = np.random.default_rng(0)
    rows = []
    for number in range(QUESTIONS):
        Image.fromarray(noise.integers(0, 255, (48, 64, 3), dtype=np.uint8)).save(folder / f"val2014/{number}.png")
        text = f"Is there a {'very ' * (number % 4)}red bus in the image?"
        label = "yes" if number % 3 else "no"
        rows.append({"question_id": number, "image": f"{number}.png", "text": text, "label": label})
    (folder / "coco_pope_random.json").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return folder


def pope_task(folder: Path, **changes: Any) -> Task:
    """The questions of `write_pope`, two in a batch, with answers of 4 tokens."""
    pope = BENCHMARKS["pope"]
    questions = pope.questions(folder, split="random")
    task = Task("pope", pope, questions, pope.template, BATCH_SIZE, 4, options={"split": "random"})
    return replace(task, **changes)


def open_tiny() -> tuple[Any, Any, Collator]:
    processor = tiny_avt_processor()
    return build_base("composite"), processor, Collator(processor)


def run(
    task: Task, out: Path, open_model: Callable[[], Any] = open_tiny, weights: str = "a", **how: Any
) -> list[Record]:
    """The task's records, in `out`, of a model whose weights are called `weights`."""
    identity = {"target": "tiny", "model": {"adapter_sha256": weights}}
    return evaluate(task, open_model, out, identity=identity, console=Console(quiet=True), **how)


def run_process(folder: str, out: str, dies_in: dict[int, int] | None = None) -> list[str]:
    """`run` in a process of its own, one of several or alone; dies_in: a rank -> the batch, by its number among this
    process's own, of which it writes one half and is killed. Gives what it told."""
    append, told = parts.Part.append, []

    def append_half(self, answered):
        if (dies_in or {}).get(rank()) == len(told):
            self._file.write(b'{"batch": 3, "predictions": {"rand')
            os.kill(os.getpid(), signal.SIGKILL)
        append(self, answered)
        told.append(answered.batch)

    parts.Part.append = append_half
    with process_group():
        run(pope_task(Path(folder)), Path(out))
    return told
