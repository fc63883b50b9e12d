"""What a sandbox uses, as envd tells it."""

from __future__ import annotations

import time
from typing import Any

from sandbox_local.envd.boxfiles import ask
from sandbox_local.isolation.base import Box, Limits

_LEAST_SPAN = 0.1  # seconds: processor time is counted in hundredths, so over less the rest is noise


class Metrics:
    """Measures a box. Its processor use is the mean since the measurement before, or since the first
    request.

    Args:
        box: The box.
        limits: What it may use.
    """

    def __init__(self, box: Box, limits: Limits) -> None:
        self._box = box
        self._limits = limits
        self._measured = (time.monotonic(), 0.0)

    async def read(self) -> dict[str, Any]:
        """The figures: bytes, and percent of the processors that it may use.

        They are the kernel's where it keeps account of the box as a whole, and otherwise sums over its
        processes: without what is written to files, and with shared memory once for each.

        Raises:
            BoxGone: The box has ended.
        """
        usage = await ask(self._box, "usage")
        whole = self._box.usage()
        now, seconds = time.monotonic(), _first(whole.cpu_seconds, float(usage["cpu_seconds"]))
        since, seconds_since = self._measured
        cpus = self._limits.cpus or self._limits.cpu_count
        share = max(0.0, seconds - seconds_since) / max(now - since, _LEAST_SPAN) / cpus
        if now - since >= _LEAST_SPAN:
            self._measured = (now, seconds)
        total, used = self._limits.memory_bytes, int(_first(whole.memory_used, int(usage["memory_used"])))
        return {
            "ts": int(time.time()),
            "cpu_count": self._limits.cpu_count,
            "cpu_used_pct": round(100 * share, 2),
            "mem_total": total,
            "mem_used": used,
            "mem_cache": whole.memory_cache or 0,
            "mem_total_mib": total >> 20,
            "mem_used_mib": used >> 20,
            "disk_total": int(usage["disk_total"]),
            "disk_used": int(usage["disk_used"]),
        }


def _first(known: float | None, otherwise: float) -> float:
    return otherwise if known is None else known
