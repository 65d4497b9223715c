"""MachineLoad: whether other processes used the processor while something was timed."""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import Any

STAT = Path("/proc/stat")
BUSY = (0, 1, 2, 5, 6, 7)  # user, nice, system, irq, softirq, steal; the rest is idle, or counted in these


class MachineLoad:
    """Counts from its construction on what others used, in cores; None where the system does not tell (no /proc)."""

    def __init__(self) -> None:
        self.start = self._now()

    def facts(self) -> dict[str, Any]:
        """`other_cores`: processor time that other processes used, over the time that passed; and the load average."""
        then, now = self.start, self._now()
        other = None
        if then["busy"] is not None and now["busy"] is not None:
            used = now["busy"] - then["busy"] - (now["own"] - then["own"])
            other = round(max(used, 0.0) / max(now["clock"] - then["clock"], 1e-9), 3)
        average = round(os.getloadavg()[0], 2) if hasattr(os, "getloadavg") else None
        return {"other_cores": other, "load_average_1_minute": average}

    @staticmethod
    def _now() -> dict[str, Any]:
        own = os.times()
        spent = own.user + own.system + own.children_user + own.children_system
        return {"clock": time.perf_counter(), "own": spent, "busy": busy_seconds()}


def busy_seconds() -> float | None:
    """Processor seconds that all processes have used since the machine started."""
    try:
        first = STAT.read_text(encoding="ascii").partition("\n")[0].split()[1:]
    except OSError:
        return None
    ticks = [int(value) for value in first]
    return sum(ticks[index] for index in BUSY) / os.sysconf("SC_CLK_TCK")
