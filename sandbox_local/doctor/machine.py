"""Facts of the machine that explain what its sandboxes are like."""

from __future__ import annotations

import os
import platform
import shutil
from pathlib import Path

from sandbox_local.doctor.report import Finding, State


def facts() -> dict[str, str]:
    """Where the examination takes place, in words."""
    cpus = len(os.sched_getaffinity(0))
    memory = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    return {
        "Kernel": f"Linux {platform.release()}, {platform.machine()}",
        "System": _system(),
        "Processors and memory": f"{cpus}, {memory / (1 << 30):.1f} GiB",
        "Python": platform.python_version(),
        "Server runs as": "root" if os.geteuid() == 0 else "a user without privileges",
    }


def debootstrap() -> Finding:
    """Whether templates can be built from a distribution's packages."""
    title = "templates by debootstrap"
    if os.geteuid() != 0:
        return Finding(
            title, State.OFF, "it needs root", "run `template build` as root, or `template import` a tarball"
        )
    if found := shutil.which("debootstrap"):
        return Finding(title, State.ON, f"{found} is there")
    return Finding(title, State.OFF, "debootstrap is not in PATH", "Debian, Ubuntu: install debootstrap")


def newuidmap() -> str:
    """What a user needs to get a range of ids, or "" if all of it is there."""
    lacking = [name for name in ("newuidmap", "newgidmap") if not shutil.which(name)]
    if lacking:
        return "install newuidmap and newgidmap (Debian, Ubuntu: package uidmap)"
    return "give this user ranges in /etc/subuid and /etc/subgid (`usermod --add-subuids`, `--add-subgids`)"


def _system() -> str:
    try:
        fields = platform.freedesktop_os_release()
    except OSError:
        return "unknown"
    container = " in a container" if _in_container() else ""
    return fields.get("PRETTY_NAME", fields["NAME"]) + container


def _in_container() -> bool:
    return any(Path(path).exists() for path in ("/.dockerenv", "/run/.containerenv"))
