"""What processes and the kernel hold, by what /proc tells."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

KIB = 1 << 10


class Processes(NamedTuple):
    """The processes of a server: itself, those that fork sandboxes, and those of sandboxes."""

    server: list[int]
    zygote: list[int]
    boxes: list[int]


def processes(server: int) -> Processes:
    """Find them: the zygote is the server's child and that one's child, all below belongs to sandboxes."""
    zygote = [child for outer in _children(server) for child in (outer, *_children(outer))]
    boxes = [pid for parent in zygote[1:] for pid in _descendants(parent)]
    return Processes([server], zygote, boxes)


def pss(pids: list[int]) -> int:
    """Their proportional share of all memory, in bytes."""
    return sum(_field(Path(f"/proc/{pid}/smaps_rollup"), "Pss") for pid in pids)


def resident(pid: int) -> int:
    """The memory that a process has mapped, in bytes."""
    return _field(Path(f"/proc/{pid}/status"), "VmRSS")


def reset_peak(pid: int) -> None:
    """Let the peak of its resident memory begin anew."""
    Path(f"/proc/{pid}/clear_refs").write_text("5")


def peak(pid: int) -> int:
    """The most memory that a process has had mapped, in bytes."""
    return _field(Path(f"/proc/{pid}/status"), "VmHWM")


def machine() -> dict[str, int]:
    """What is available on the machine, and what the kernel holds for itself, in bytes."""
    names = ("MemAvailable", "Slab", "SReclaimable", "PageTables", "KernelStack", "Percpu", "Shmem")
    return {name: _field(Path("/proc/meminfo"), name) for name in names}


def settle() -> None:
    """Wait until the kernel has freed what it frees in its own time, but not for ever."""
    last = 0
    for _ in range(20):
        time.sleep(1)
        now = machine()["MemAvailable"]
        if abs(now - last) < 4 << 20:
            return
        last = now


def _field(file: Path, name: str) -> int:
    for line in file.read_text().splitlines():
        if line.startswith(f"{name}:"):
            return int(line.split()[1]) * KIB
    raise LookupError(f"{file} does not tell {name}")


def _children(pid: int) -> Iterator[int]:
    try:
        for task in os.listdir(f"/proc/{pid}/task"):
            for child in Path(f"/proc/{pid}/task/{task}/children").read_text().split():
                yield int(child)
    except (FileNotFoundError, ProcessLookupError):
        pass  # it has ended meanwhile


def _descendants(pid: int) -> Iterator[int]:
    for child in _children(pid):
        yield child
        yield from _descendants(child)
