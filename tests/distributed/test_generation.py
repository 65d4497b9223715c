"""`generate` of a PeftModel whose layers are split over two processes."""

from __future__ import annotations

import pytest

from .launch import Launch
from .test_equivalence import HALF, RECOMPUTED, SHARDED, TIGHT, WHOLE

GENERATED = "tests.distributed.trajectory:generated"


def generate(processes, folder, count, settings):
    return Launch(processes, folder, GENERATED, {"out": str(folder / "out"), **settings}, count).results()


@pytest.mark.slow
@pytest.mark.parametrize("settings", [TIGHT, SHARDED, RECOMPUTED], ids=["ddp", "fsdp2", "fsdp2-recomputed"])
def test_same_tokens(processes, tmp_path, settings):
    (expected,) = generate(processes, tmp_path / "one", 1, WHOLE)
    for tokens in generate(processes, tmp_path / "two", 2, {**HALF, **settings}):
        assert tokens == expected
