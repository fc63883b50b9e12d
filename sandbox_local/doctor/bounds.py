"""What bounds a sandbox, and whether it does: one is made small and made to exceed its bounds."""

from __future__ import annotations

from sandbox_local.doctor.look import run
from sandbox_local.doctor.report import Finding, Section, State
from sandbox_local.isolation.base import Box, Limits
from sandbox_local.isolation.limits.enforcement import Enforcement

SMALL = Limits(memory_bytes=128 << 20, disk_bytes=16 << 20)
"""Limits of a sandbox for `examine`."""

_TITLES = {"memory": "memory", "pids": "processes at once", "cpu": "processor time"}
_HOG = "head -c 512M /dev/zero | tail; echo ${PIPESTATUS[1]}"  # tail keeps all of what is one line
_FULL = 'head -c 32M /dev/zero > /tmp/full 2>/dev/null && echo "written"'


async def examine(box: Box, enforcement: Enforcement, limits: Limits) -> Section:
    """Exceed the bounds of a sandbox.

    Args:
        box: A sandbox that was made with `SMALL`.
        enforcement: What is said to bound it.
        limits: Those of the sandboxes that a server makes by default, for the report.

    Raises:
        OSError: No command could be started in it.
    """
    hog = (await run(box, _HOG, "user")).strip()
    full = (await run(box, _FULL, "user")).strip()
    bounds = {
        "memory": f"{limits.memory_bytes / (1 << 30):.1f} GiB by default, files included",
        "pids": f"{limits.processes} by default, threads included",
        "cpu": "all processors by default, at a lower weight than the server's",
    }
    return Section("Bounds", [*findings(enforcement, bounds, hog=hog), _disk(full, limits.disk_bytes)])


def findings(enforcement: Enforcement, bounds: dict[str, str], *, hog: str) -> list[Finding]:
    """What follows from what is said to bound a sandbox, and from what a hog of memory came to.

    Args:
        enforcement: What is said.
        bounds: The bounds by resource, in words.
        hog: The exit code of the hog; 0 means that nothing stopped it.
    """
    found = []
    for resource, bound in bounds.items():
        title = _TITLES[resource]
        shortfall = enforcement.shortfall(resource)
        if resource == "memory" and hog in ("", "0"):
            found.append(Finding(title, State.FAILED, "a command that exceeded it was not stopped"))
        elif shortfall is None:
            found.append(Finding(title, State.ON, f"{bound}; {enforcement.bounded[resource]}"))
        else:
            detail = f"{shortfall.cause}; instead, {shortfall.instead}"
            found.append(Finding(title, State.PARTLY, detail, shortfall.remedy))
    return found


def _disk(full: str, disk_bytes: int) -> Finding:
    if full:
        return Finding("disk", State.FAILED, "what it writes has no bound")
    size = f"{disk_bytes / (1 << 30):.1f} GiB by default"
    return Finding("disk", State.ON, f"{size}, in memory; nothing lies on the host's disk")
