"""A batch without media in one of two processes, while the projectors are trained."""

from __future__ import annotations

import pytest

from .launch import difference
from .test_equivalence import HALF, SHARDED, TIGHT, TOLERANCE, WHOLE

MIXED = dict(family="llava", projectors=True, text_only=True)
HANG_SECONDS = 20


@pytest.mark.parametrize("settings", [TIGHT, SHARDED], ids=["ddp", "fsdp2"])
def test_an_empty_medium_keeps_processes_together(trained, settings):
    expected = trained(1, **MIXED, blank=True, **WHOLE)
    got = trained(2, **MIXED, blank=True, **HALF, **settings)
    assert difference(got["losses"], expected["losses"]) < TOLERANCE
    assert any("projector" in name for name in got["weights"])
    for name, value in expected["weights"].items():
        assert (got["weights"][name] - value).abs().max() < TOLERANCE, name


@pytest.mark.slow
def test_ddp_that_looks_for_unused_weights_needs_none(trained):
    """transformers sets it so for every PeftModel."""
    expected, got = trained(1, **MIXED, **WHOLE), trained(2, **MIXED, **HALF)
    assert difference(got["losses"], expected["losses"]) < TOLERANCE


@pytest.mark.slow
@pytest.mark.parametrize(
    "settings", [TIGHT, {"projectors": False, **SHARDED}, SHARDED], ids=["ddp", "fsdp2-frozen", "fsdp2"]
)
def test_without_it_the_processes_part(trained, settings):
    """Also with frozen towers under FSDP2: each of their layers is gathered by those that run it."""
    with pytest.raises(AssertionError, match="rank . of 2 failed"):
        trained(2, timeout_seconds=HANG_SECONDS, **{**MIXED, **HALF, **settings})
