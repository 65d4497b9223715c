"""Settings that must not change what is learnt: where samples are held, and whether they share rows."""

import io
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow
import pyarrow.parquet
import pytest

from moka_peft.data import AvDigits, Sample
from moka_peft.training import load_recipe, train

pytestmark = pytest.mark.usefixtures("without_plots")

SAMPLES, STEPS = 12, 8  # of two or four samples: a second epoch begins


def write_jsonl(folder: Path, samples: list[Sample]) -> None:
    for sample in samples:
        sample.media("image")[0]["image"].save(folder / f"{sample.id}.png")
    rows = [{**row(sample), "images": [f"{sample.id}.png"]} for sample in samples]
    (folder / "rows.jsonl").write_text("\n".join(map(json.dumps, rows)))


def write_parquet(folder: Path, samples: list[Sample]) -> None:
    def encoded(sample: Sample) -> bytes:
        file = io.BytesIO()
        sample.media("image")[0]["image"].save(file, "PNG")
        return file.getvalue()

    table = pyarrow.Table.from_pylist([{**row(s), "images": [{"bytes": encoded(s), "path": None}]} for s in samples])
    pyarrow.parquet.write_table(table, folder / "rows.parquet", row_group_size=5)


def row(sample: Sample) -> dict[str, Any]:
    question = "<image>" + sample.messages[0]["content"][-1]["text"]
    answer = " ".join([sample.answer] * (1 + len(question) % 4))  # of different lengths: each token counts once
    return {"messages": [{"role": "user", "content": question}, {"role": "assistant", "content": answer}]}


@pytest.fixture
def losses(write_yaml: Callable[..., Path], tmp_path: Path) -> Iterator[Callable[..., list[float]]]:
    """losses("jsonl", "training.packing=true", ...) -> what all steps log."""
    samples = list(AvDigits("train", SAMPLES, groups=["Visual"]))
    recipe = write_yaml("data:\n  train: {name: av_digits, split: train, size: 20}", "data: {train: {path: ROWS}}")
    recipe.write_text(recipe.read_text().replace("  eval: {name: av_digits, split: test, size: 6}\n", ""))

    def run(kind: str, *settings: str) -> list[float]:
        file = tmp_path / f"rows.{kind}"
        if not file.exists():
            {"jsonl": write_jsonl, "parquet": write_parquet}[kind](tmp_path, samples)
        recipe.write_text(recipe.read_text().replace("path: ROWS", f"path: {file}"))
        plan = load_recipe(recipe, [f"training.steps={STEPS}", "training.save_steps=1000", "overwrite=true", *settings])
        train(plan)
        state = json.loads(
            (tmp_path / "out" / "checkpoints" / f"checkpoint-{STEPS}" / "trainer_state.json").read_text()
        )
        return [entry["loss"] for entry in state["log_history"] if "loss" in entry]

    yield run


@pytest.mark.parametrize("kind", ["jsonl", "parquet"])
def test_streamed_is_in_memory(losses, kind: str):
    held, streamed = (losses(kind, f"data.train.streaming={way}", "training.batch_size=2") for way in ("false", "true"))
    assert len(held) == STEPS
    assert streamed == held


def test_packed_is_unpacked(losses):
    settings = ("adapter.lora_dropout=0", "training.max_length=256")
    unpacked, packed = (losses("jsonl", *settings, f"training.packing={way}") for way in ("false", "true"))
    assert unpacked[-1] < 0.9 * unpacked[0]
    np.testing.assert_allclose(packed, unpacked, rtol=1e-4)
