"""PEFT's policy for FSDP makes a unit of every leaf with a trainable weight; a factor must not become one."""

from __future__ import annotations

import pytest
from peft.utils.other import fsdp_auto_wrap_policy

from .launch import Launch, difference
from .test_equivalence import TOLERANCE
from .trajectory import adapted

FUNCTION = "tests.distributed.policies:losses_by_policy"


def test_no_factor_is_a_unit():
    model = adapted("llava", "moka", True, {})
    policy = fsdp_auto_wrap_policy(model)
    units = [n for n, m in model.named_modules() if policy(module=m, recurse=False, nonwrapped_numel=0)]
    assert not any("moka_" in name for name in units)
    assert any(name.endswith("language_model.layers.1") for name in units)
    assert any("multi_modal_projector" in name for name in units)


@pytest.mark.slow
@pytest.mark.parametrize("version", [1, 2])
def test_it_shards(processes, tmp_path, version):
    one = Launch(processes, tmp_path / "one", FUNCTION, {"out": "", "version": 0}, 1).results()[0]
    two = Launch(processes, tmp_path / "two", FUNCTION, {"out": "", "version": version}, 2).results()[0]
    assert difference(two, one) < TOLERANCE
