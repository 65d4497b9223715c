"""Finished runs of a comparison, made up: their results, and their answers where a test reads them."""

import json
from dataclasses import replace
from functools import partial

import numpy as np
import pytest

from moka_peft.analysis.compare.results import Result, Row, Table

PLAIN = Result(
    cell="cell",
    variant="lora",
    seed=0,
    settings={},
    metric="exact_match",
    score=0.5,
    groups={},
    questions=4,
    loss=0.7,
    adapter_parameters=34_816,
    trained_parameters=40_000,
    flops_per_token=69_632.0,
    seconds=40.0,
    peak_bytes=30_000_000,
    steps=300,
    machine={"device": "a CPU", "torch": "2.13.0"},
)


@pytest.fixture
def make_runs(runs_in, tmp_path):
    return runs_in(tmp_path)


@pytest.fixture(scope="session")
def runs_in():
    """runs_in(folder) -> make(variant, points [S, Q], weights) -> seed -> a run with those answers.

    Without `points`: with `scores`, and no answers.
    """
    return partial(partial, _make)


def _make(folder, variant, points=None, weights=None, scores=(), **changes):
    runs = {}
    for seed, score in enumerate(scores if points is None else points):
        cell = f"{variant}-{len(list(folder.glob('*')))}-{seed}"
        changed = {"score": score} if points is None else {"questions": len(score)}
        if points is not None:
            weight = np.ones(len(score)) if weights is None else np.asarray(weights[seed])
            changed["score"] = float(sum(score) / sum(weight))
            (folder / cell).mkdir()
            rows = [
                {"id": f"q{place}", "points": float(one), "weight": float(weighed)}
                for place, (one, weighed) in enumerate(zip(score, weight, strict=True))
            ]
            (folder / cell / "answers.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
        runs[seed] = replace(PLAIN, cell=cell, variant=variant, seed=seed, folder=folder / cell, **changed | changes)
    return runs


@pytest.fixture
def make_table(make_runs):
    """make({label: scores}) -> a table of those methods against `lora`, without answers."""

    def make(scores, axis=None, value=None, **changes):
        rows = [
            Row(label, label, value, make_runs(label, scores=values, **changes)) for label, values in scores.items()
        ]
        return Table("equal rank", axis, "lora", tuple(rows))

    return make
