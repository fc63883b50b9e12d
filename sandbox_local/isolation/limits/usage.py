"""What control groups say that a box uses."""

from __future__ import annotations

from pathlib import Path

from sandbox_local.isolation.base import Usage

_NANOSECONDS = 1e9
_MICROSECONDS = 1e6


def read(directories: dict[str, Path], version: dict[str, int]) -> Usage:
    """Read a box's groups.

    Args:
        directories: The box's group for each controller.
        version: Its version.
    """
    used = cache = seconds = None
    try:
        if "memory" in directories:
            used, cache = _memory(directories["memory"], version["memory"])
        if "cpu" in directories:
            seconds = _seconds(directories["cpu"], version["cpu"])
    except (OSError, ValueError, KeyError):
        pass  # the box has ended
    return Usage(cpu_seconds=seconds, memory_used=used, memory_cache=cache)


def _memory(group: Path, version: int) -> tuple[int, int]:
    """What is in use, and besides it what caches files of the host and is given up for anything else."""
    stat = _table(group / "memory.stat")
    current = int((group / ("memory.current" if version == 2 else "memory.usage_in_bytes")).read_text())
    cache = max(0, stat["file" if version == 2 else "cache"] - stat["shmem"])
    return max(0, current - cache), cache


def _seconds(group: Path, version: int) -> float | None:
    if version == 2:
        return _table(group / "cpu.stat")["usage_usec"] / _MICROSECONDS
    try:  # the counter is a controller of its own, which most machines mount with this one
        return int((group / "cpuacct.usage").read_text()) / _NANOSECONDS
    except FileNotFoundError:
        return None


def _table(path: Path) -> dict[str, int]:
    rows = (line.split() for line in path.read_text(encoding="ascii").splitlines())
    return {row[0]: int(row[1]) for row in rows}
