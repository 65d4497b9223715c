"""Settings that must give the same losses: one batch of four in one process, in parts, and in two processes."""

from __future__ import annotations

import pytest

from .launch import difference

TOLERANCE = 1e-4  # of the losses, over 20 steps; what was measured is 2e-7
WHOLE = dict(per_device_train_batch_size=4)
HALF = dict(per_device_train_batch_size=2)
QUARTER = dict(per_device_train_batch_size=1, gradient_accumulation_steps=2)
SHARDED = dict(fsdp=True, fsdp_config={"version": 2})
RECOMPUTED = dict(fsdp=True, fsdp_config={"version": 2, "activation_checkpointing": True})
LOADED_ONCE = dict(fsdp=True, fsdp_config={"version": 2, "cpu_ram_efficient_loading": True})
TIGHT = dict(ddp_find_unused_parameters=False)
ROOT = "base_model.model.model."


def compare(trained, family: str, count: int, **settings) -> dict:
    expected = trained(1, family=family, **WHOLE)
    got = trained(count, family=family, **settings)
    assert len(got["losses"]) == 20
    assert difference(got["losses"], expected["losses"]) < TOLERANCE
    assert difference(got["norms"], expected["norms"]) < TOLERANCE
    return got


def test_losses_fall(trained):
    losses = trained(1, family="qwen2_5_vl", **WHOLE)["losses"]
    assert losses[-1] < 0.8 * losses[0]


def test_accumulation(trained):
    compare(trained, "qwen2_5_vl", 1, per_device_train_batch_size=1, gradient_accumulation_steps=4)


def test_ddp(trained):
    compare(trained, "qwen2_5_vl", 2, **HALF, **TIGHT)


def test_fsdp2(trained):
    """Each decoder layer is a unit, and none of what the adapter added to it."""
    units = compare(trained, "qwen2_5_vl", 2, **HALF, **SHARDED)["units"]
    assert {f"{ROOT}language_model.layers.0", f"{ROOT}language_model.layers.1"} < set(units)
    assert not any("moka_" in unit or "_proj" in unit for unit in units)


def test_fsdp2_of_a_model_whose_list_of_layers_names_an_absent_one(trained):
    assert f"{ROOT}language_model.layers.1" in compare(trained, "llava", 2, **HALF, **SHARDED)["units"]


def test_averages_of_averages_would_show(trained):
    """Answers differ in length: a mean per process gives another trajectory."""
    expected = trained(1, family="qwen2_5_vl", **WHOLE)
    got = trained(2, family="qwen2_5_vl", **HALF, average_tokens_across_devices=False)
    assert difference(got["losses"], expected["losses"]) > 100 * TOLERANCE


@pytest.mark.parametrize("family", ["qwen2_5_vl", pytest.param("qwen2_audio", marks=pytest.mark.slow)])
def test_transformers_own_loss_depends_on_how_a_step_is_cut(trained, family):
    """Why there is a Trainer of ours: one family's forward refuses the token count, one takes it and ignores it."""
    expected = trained(1, family=family, **WHOLE)
    cut = dict(per_device_train_batch_size=1, gradient_accumulation_steps=4)
    got = trained(1, family=family, average_tokens=False, **cut)
    assert difference(got["losses"], expected["losses"]) > 100 * TOLERANCE


@pytest.mark.slow
@pytest.mark.parametrize("family", ["llava", "qwen2_audio", "composite"])
@pytest.mark.parametrize(
    ("count", "settings"),
    [
        (1, dict(per_device_train_batch_size=1, gradient_accumulation_steps=4)),
        (2, {**HALF, **TIGHT}),
        (2, {**HALF, **SHARDED}),
    ],
    ids=["accumulation", "ddp", "fsdp2"],
)
def test_families(trained, family, count, settings):
    compare(trained, family, count, **settings)


@pytest.mark.slow
@pytest.mark.parametrize(
    "settings",
    [
        {**QUARTER, **TIGHT},
        {**HALF, **TIGHT, "activation_checkpointing": True},
        {**HALF, "ddp_static_graph": True},
        {**QUARTER, **SHARDED},
        {**HALF, **RECOMPUTED},
        {**QUARTER, **RECOMPUTED},
        {**HALF, **LOADED_ONCE},
        {**HALF, **SHARDED, "activation_checkpointing": True},
    ],
    ids=lambda settings: "-".join(f"{name}" for name in settings if name != "per_device_train_batch_size"),
)
def test_settings(trained, settings):
    compare(trained, "qwen2_5_vl", 2, **settings)
