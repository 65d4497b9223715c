"""The Triton kernels in Triton's interpreter, on the CPU; and that nobody meets Triton who did not ask for it."""

from __future__ import annotations

import logging
import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from moka_peft.ops import eager, moka_delta
from moka_peft.ops import triton as kernels
from moka_peft.ops.implementation import parts_for
from moka_peft.ops.triton import agreement, available
from moka_peft.routing import Routing

CASES = Path(__file__).with_name("kernel_cases.py")
CPU, GPU = torch.device("cpu"), torch.device("cuda", 0)


def run_python(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    inherited = {name: value for name, value in os.environ.items() if not name.startswith(("PYTEST_", "TRITON_"))}
    inherited |= {"OMP_NUM_THREADS": "1", **environment}
    return subprocess.run([sys.executable, *arguments], env=inherited, capture_output=True, text=True, timeout=280)


@pytest.mark.parametrize("chosen", ["project", "not project"])
def test_kernels_in_the_interpreter(chosen: str):
    """Triton decides at import whether it interprets, so this takes a process of its own."""
    pytest.importorskip("triton")
    options = ("--noconftest", "-p", "no:cacheprovider", "-p", "no:xdist", "-k", chosen)
    ended = run_python("-m", "pytest", *options, str(CASES), TRITON_INTERPRET="1")
    assert ended.returncode == 0, ended.stdout[-8000:] + ended.stderr[-2000:]


def test_without_a_gpu_triton_is_not_imported():
    """Importing it fails here; torch, which looks whether it is there, does without."""
    code = """
import sys
sys.modules["triton"] = None
import torch, moka_peft
from moka_peft.ops import eager, moka_delta
routing = moka_peft.Routing(torch.tensor([[0, 1]]), torch.tensor([[1, 1]]))
weights = torch.randn(2, 2, 8), torch.randn(4, 2)
for impl in ("auto", "eager", "reference"):
    moka_delta(torch.randn(1, 2, 8), *weights, routing, scaling=1.0, cross_scale=1.0, impl=impl)
loaded = {name.split(".")[-1] for name in sys.modules if name.startswith("moka_peft.ops.triton.")}
assert loaded <= {"available", "tiles"}, loaded
"""
    ended = run_python("-c", code)
    assert ended.returncode == 0, ended.stderr


@pytest.mark.parametrize(
    ("device", "dtype", "rank", "why"),
    [
        (CPU, torch.float32, 4, "expected a CUDA device, got cpu"),
        (GPU, torch.float64, 4, "expected float32, bfloat16 or float16, got torch.float64"),
        (GPU, torch.float32, 129, "expected a rank of 1 to 128, got 129"),
    ],
)
def test_what_cannot_run_is_refused_by_name(device: torch.device, dtype: torch.dtype, rank: int, why: str):
    with pytest.raises(ValueError, match=rf"`impl`='triton': {why}.*Use impl='auto'"):
        available.require(device, dtype, rank)
    assert not available.usable(device, dtype, rank)


def test_an_old_gpu_and_an_amd_one_are_refused(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: (7, 5))
    assert available.obstacle(GPU, torch.float16, 4) == "expected compute capability 8.0 or later, got 7.5"
    monkeypatch.setattr(torch.version, "hip", "6.2")
    assert "AMD" in (available.obstacle(GPU, torch.float16, 4) or "")


def test_a_layer_on_the_cpu_that_asks_for_triton_says_what_to_do():
    routing = Routing(torch.tensor([[0, 1]]), torch.tensor([[1, 1]]))
    with pytest.raises(ValueError, match="Use impl='auto'"):
        moka_delta(
            torch.randn(1, 2, 8),
            torch.randn(2, 2, 8),
            torch.randn(4, 2),
            routing,
            scaling=1.0,
            cross_scale=1.0,
            impl="triton",
        )


@pytest.fixture
def capable(monkeypatch: pytest.MonkeyPatch):
    """As if a capable GPU were here."""
    monkeypatch.setattr(available, "_cuda_obstacle", lambda device: None)
    monkeypatch.setattr(available, "_results", {})
    monkeypatch.setattr(torch.cuda, "is_current_stream_capturing", lambda: False)


def test_kernels_that_agree_are_taken_and_compared_once(capable, monkeypatch: pytest.MonkeyPatch):
    compared = []
    monkeypatch.setattr(agreement, "disagreement", lambda *case: compared.append(case))
    x: Any = SimpleNamespace(device=GPU, dtype=torch.bfloat16)
    assert all(parts_for("auto", x, rank) is kernels for rank in (3, 16, 3))
    assert compared == [(GPU, torch.bfloat16, 3), (GPU, torch.bfloat16, 16)]  # Triton compiles other kernels for it
    assert parts_for("eager", x, 20) is eager


@pytest.mark.parametrize("failure", ["differ", "raise"])
def test_kernels_that_fail_are_left_with_one_warning(
    failure: str, capable, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
):
    def fail(*case: object) -> str:
        if failure == "raise":
            raise RuntimeError("ptxas died")
        return "z is off by 3"

    monkeypatch.setattr(agreement, "disagreement", fail)
    with caplog.at_level(logging.WARNING):
        assert not any(available.usable(GPU, torch.bfloat16, 16) for _ in range(3))
    assert [record.message.split(": ", 1)[1] for record in caplog.records] == [
        {"differ": "z is off by 3", "raise": "RuntimeError: ptxas died"}[failure]
    ]


def test_nothing_is_compared_while_a_graph_is_captured(capable, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(torch.cuda, "is_current_stream_capturing", lambda: True)
    assert not available.usable(GPU, torch.bfloat16, 16) and not available._results
