"""DeepSpeed ZeRO on its CPU accelerator; where DeepSpeed is not installed nothing here runs."""

from __future__ import annotations

import os

import pytest
import torch
from peft import PeftModel

from .chats import build_base
from .conftest import TRAJECTORY
from .launch import Launch, difference
from .test_equivalence import TOLERANCE, WHOLE
from .test_generation import generate

pytest.importorskip("deepspeed")
pytestmark = pytest.mark.slow

AUTO = ("train_micro_batch_size_per_gpu", "gradient_accumulation_steps", "train_batch_size", "gradient_clipping")
HALF = dict(per_device_train_batch_size=2, use_cpu=False)
QUARTER = dict(per_device_train_batch_size=1, gradient_accumulation_steps=2, use_cpu=False)


@pytest.fixture(autouse=True)
def on_the_cpu(monkeypatch):
    monkeypatch.setenv("DS_ACCELERATOR", "cpu")


def zero(stage: int) -> dict:
    """Every weight is split at stage 3, however small."""
    gathering = {"stage3_param_persistence_threshold": 0, "stage3_gather_16bit_weights_on_model_save": True}
    settings = {"zero_allow_untested_optimizer": True, "zero_force_ds_cpu_optimizer": False}
    return dict(
        deepspeed={"zero_optimization": {"stage": stage, **gathering}, **dict.fromkeys(AUTO, "auto"), **settings},
        environment={"DS_ACCELERATOR": "cpu"},
    )


def compare(trained, settings, **also):
    expected = trained(1, family="llava", **also, **WHOLE)
    got = trained(2, family="llava", **also, **settings)
    assert difference(got["losses"], expected["losses"]) < TOLERANCE
    for name, value in expected["weights"].items():
        assert (got["weights"][name] - value).abs().max() < TOLERANCE, name
    return got


@pytest.mark.parametrize("stage", [2, 3])
@pytest.mark.parametrize(
    "settings", [HALF, QUARTER, {**HALF, "activation_checkpointing": True}], ids=["plain", "accumulated", "recomputed"]
)
def test_losses(trained, stage, settings):
    compare(trained, {**settings, **zero(stage)})


@pytest.mark.parametrize("stage", [2, 3])
def test_an_empty_medium_keeps_processes_together(trained, stage):
    compare(trained, {**HALF, **zero(stage)}, projectors=True, text_only=True, blank=True)


@pytest.mark.parametrize("stage", [2, 3])
def test_without_it_they_part(trained, stage):
    mixed = dict(family="llava", projectors=True, text_only=True)
    with pytest.raises(AssertionError, match="rank . of 2 failed"):
        trained(2, timeout_seconds=40, **mixed, **HALF, **zero(stage))


@pytest.mark.parametrize("stage", [2, 3])
def test_resumed_is_uninterrupted_and_loads_in_one_process(trained, processes, tmp_path, stage):
    settings = dict(family="llava", save_strategy="steps", save_steps=8, **HALF, **zero(stage))
    whole = trained(2, **settings)
    os.symlink(whole["out"] / "checkpoint-8", tmp_path / "checkpoint-8")
    arguments = {"out": str(tmp_path), "resume": True, **settings}
    resumed = Launch(processes, tmp_path, TRAJECTORY, arguments, 2).results()[0]
    assert resumed["resumed"] == "checkpoint-8"
    assert difference(resumed["losses"], whole["losses"]) < TOLERANCE
    model = PeftModel.from_pretrained(build_base("llava"), whole["out"] / "final", is_trainable=True)
    for name, value in model.named_parameters():
        assert not value.requires_grad or torch.equal(whole["weights"][name], value), name


@pytest.mark.parametrize("stage", [2, 3])
def test_same_tokens(processes, tmp_path, stage):
    (expected,) = generate(processes, tmp_path / "one", 1, WHOLE)
    for tokens in generate(processes, tmp_path / "two", 2, {**HALF, **zero(stage)}):
        assert tokens == expected
