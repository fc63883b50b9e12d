"""What a sandbox uses, measured when somebody asks."""

from __future__ import annotations

from datetime import datetime, timezone

from sandbox_sync_rest.models.sandbox_metric import SandboxMetric

from sandbox_local.control.registry import Sandbox


async def measure(sandbox: Sandbox) -> SandboxMetric:
    """What a running sandbox uses now.

    Raises:
        BoxGone: It has ended.
    """
    usage = await sandbox.metrics.read()
    return SandboxMetric(
        timestamp=datetime.fromtimestamp(usage["ts"], timezone.utc),
        timestamp_unix=usage["ts"],
        cpu_count=usage["cpu_count"],
        cpu_used_pct=usage["cpu_used_pct"],
        mem_used=usage["mem_used"],
        mem_total=usage["mem_total"],
        mem_cache=usage["mem_cache"],
        disk_used=usage["disk_used"],
        disk_total=usage["disk_total"],
    )
