"""Checkpoints of two processes: they resume, and the adapter they end with is an ordinary one."""

from __future__ import annotations

import shutil

import pytest
import torch
from peft import PeftModel

from moka_peft.training.checkpoint import newest_complete

from .chats import build_base
from .conftest import TRAJECTORY
from .launch import Launch
from .test_equivalence import HALF, SHARDED, TIGHT

SAVING = dict(family="qwen2_5_vl", save_strategy="steps", save_steps=8)
IN_PARTS = dict(fsdp=True, fsdp_config={"version": 2, "state_dict_type": "SHARDED_STATE_DICT"})


def resume_after_8(trained, processes, tmp_path, settings):
    """The whole run, and one that goes on from a copy of its first checkpoint."""
    whole = trained(2, **SAVING, **HALF, **settings)
    shutil.copytree(whole["out"] / "checkpoint-8", tmp_path / "out" / "checkpoint-8")
    arguments = {"out": str(tmp_path / "out"), "resume": True, **SAVING, **HALF, **settings}
    resumed = Launch(processes, tmp_path, TRAJECTORY, arguments, 2).results()[0]
    return whole, resumed


@pytest.mark.parametrize(
    "settings",
    [IN_PARTS, pytest.param(SHARDED, marks=pytest.mark.slow), pytest.param(TIGHT, marks=pytest.mark.slow)],
    ids=["fsdp2-in-parts", "fsdp2-full", "ddp"],
)
def test_resumed_is_uninterrupted(trained, processes, tmp_path, settings):
    whole, resumed = resume_after_8(trained, processes, tmp_path, settings)
    assert resumed["resumed"] == "checkpoint-8"
    assert resumed["losses"] == whole["losses"]
    for name, value in whole["weights"].items():
        assert torch.equal(resumed["weights"][name], value), name


@pytest.mark.parametrize(
    "settings", [IN_PARTS, pytest.param(SHARDED, marks=pytest.mark.slow)], ids=["fsdp2-in-parts", "fsdp2-full"]
)
def test_adapter_loads_in_one_process(trained, settings):
    whole = trained(2, **SAVING, **HALF, **settings)
    model = PeftModel.from_pretrained(build_base("qwen2_5_vl"), whole["out"] / "final", is_trainable=True)
    loaded = {name: value for name, value in model.named_parameters() if value.requires_grad}
    assert loaded.keys() == whole["weights"].keys()
    for name, value in whole["weights"].items():
        assert torch.equal(loaded[name], value), name
    model.load_adapter(whole["out"] / "checkpoint-8", "earlier")
    assert {name.replace("default", "earlier") for name in loaded} <= dict(model.named_parameters()).keys()
    last = loaded[next(iter(loaded))]
    assert not torch.equal(model.get_parameter(next(iter(loaded)).replace("default", "earlier")), last)


@pytest.mark.parametrize("lost", ["rng_state_1.pth", "trainer_state.json", "optimizer_0/.metadata"])
def test_any_file_of_any_process_is_missed(trained, tmp_path, lost):
    whole = trained(2, **SAVING, **HALF, **IN_PARTS)
    for step in (8, 16):
        shutil.copytree(whole["out"] / f"checkpoint-{step}", tmp_path / f"checkpoint-{step}")
    (tmp_path / "checkpoint-16" / lost).unlink()
    newest, torn = newest_complete(tmp_path)
    assert newest == tmp_path / "checkpoint-8"
    assert torn == [f"checkpoint-16 is torn ({lost} is missing)"]
