"""What a sandbox uses, measured when somebody asks."""

from __future__ import annotations

import time
from datetime import datetime, timezone

from sandbox_sync_rest.models.sandbox_metric import SandboxMetric

from sandbox_local.control.registry import Sandbox
from sandbox_local.control.wire import CPU_COUNT, MEMORY_BYTES

# Processor time is counted in hundredths of a second, so a mean over less than this says little.
_LEAST_SPAN = 1.0


async def measure(sandbox: Sandbox) -> SandboxMetric:
    """What a running sandbox uses now. Its processor use is the mean since it was measured before, at least a
    second ago, or since it began.

    Raises:
        BoxGone: It has ended.
    """
    usage, _ = await sandbox.box.files("usage")
    at = datetime.now(timezone.utc)
    now, spent = time.monotonic(), float(usage["cpu_seconds"])
    before, spent_before = sandbox.measured
    if now - before >= _LEAST_SPAN:
        sandbox.measured = (now, spent)
    share = max(0.0, spent - spent_before) / max(now - before, _LEAST_SPAN)
    return SandboxMetric(
        timestamp=at,
        timestamp_unix=int(at.timestamp()),
        cpu_count=CPU_COUNT,
        cpu_used_pct=round(100 * share, 2),
        mem_used=int(usage["memory_used"]),
        mem_total=MEMORY_BYTES,
        mem_cache=0,  # the page cache belongs to the machine, not to a box
        disk_used=int(usage["disk_used"]),
        disk_total=int(usage["disk_total"]),
    )
