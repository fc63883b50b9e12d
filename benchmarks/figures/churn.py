"""Whether a server that makes and ends a thousand sandboxes is afterwards what it was before."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from figures import memory
from figures.figure import Figure
from sandbox_local import LocalServer
from sandbox_sync import Sandbox

_WARM_UP = 200  # cycles that fill what is meant to be kept, such as free lists


def measure(server: LocalServer, options: dict[str, Any], cycles: int) -> Iterator[Figure]:
    """What a server has more after so many cycles of create and kill."""
    _cycle(options, _WARM_UP)
    before = _held(server)
    _cycle(options, cycles)
    after = _held(server)
    for name, (unit, bound) in _BOUNDS.items():
        growth = float(after[name] - before[name])
        if unit == "MiB":
            growth /= 1 << 20
        yield Figure(f"{name} after {cycles} cycles", unit, [growth], bound, note="growth")


_BOUNDS = {
    "memory of the server": ("MiB", 1.0),
    "memory of the zygote": ("MiB", 0.25),
    "processes": ("number", 0.0),
    "threads": ("number", 0.0),
    "descriptors": ("number", 0.0),
    "mounts": ("number", 0.0),
    "entries of directories for temporary files": ("number", 0.0),
}


def _cycle(options: dict[str, Any], times: int) -> None:
    for _ in range(times):
        Sandbox.create(timeout=600, **options).kill()


def _held(server: LocalServer) -> dict[str, int]:
    memory.settle()
    found = memory.processes(server.pid)
    pids = [pid for part in found for pid in part]
    directories = {tempfile.gettempdir(), "/dev/shm", os.environ.get("XDG_RUNTIME_DIR", "/run")}
    return {
        "memory of the server": memory.resident(server.pid),
        "memory of the zygote": sum(memory.resident(pid) for pid in found.zygote),
        "processes": len(pids),
        "threads": sum(len(os.listdir(f"/proc/{pid}/task")) for pid in pids),
        "descriptors": sum(len(os.listdir(f"/proc/{pid}/fd")) for pid in pids),
        "mounts": sum(Path(f"/proc/{pid}/mountinfo").read_bytes().count(b"\n") for pid in pids),
        "entries of directories for temporary files": sum(
            len(os.listdir(path)) for path in directories if os.path.isdir(path)
        ),
    }
