"""What a sandbox uses, as envd tells it."""

from __future__ import annotations

import os
import time
from typing import Any

from sandbox_local.envd.boxfiles import ask
from sandbox_local.isolation.base import Box

_LEAST_SPAN = 0.1  # seconds: processor time is counted in hundredths, so over less the rest is noise


class Metrics:
    """Measures a box. Its processor use is the mean since the measurement before, or since the first
    request."""

    def __init__(self, box: Box) -> None:
        self._box = box
        self._measured = (time.monotonic(), 0.0)

    async def read(self) -> dict[str, Any]:
        """The figures: bytes, and percent of all processors.

        The processors and the memory are the machine's, which all sandboxes share.

        Raises:
            BoxGone: The box has ended.
        """
        usage = await ask(self._box, "usage")
        now, seconds = time.monotonic(), float(usage["cpu_seconds"])
        since, seconds_since = self._measured
        cpus = len(os.sched_getaffinity(0))
        share = max(0.0, seconds - seconds_since) / max(now - since, _LEAST_SPAN) / cpus
        if now - since >= _LEAST_SPAN:
            self._measured = (now, seconds)
        total, used = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE"), int(usage["memory_used"])
        return {
            "ts": int(time.time()),
            "cpu_count": cpus,
            "cpu_used_pct": round(100 * share, 2),
            "mem_total": total,
            "mem_used": used,
            "mem_cache": 0,  # the page cache is the machine's
            "mem_total_mib": total >> 20,
            "mem_used_mib": used >> 20,
            "disk_total": int(usage["disk_total"]),
            "disk_used": int(usage["disk_used"]),
        }
