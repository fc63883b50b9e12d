"""What a process uses while it does something, by its own account."""

from __future__ import annotations

import gc
import resource
import time
from collections.abc import Callable
from pathlib import Path
from typing import TypedDict

_STATUS = Path("/proc/self/status")
_KIB = 1 << 10


class Sample(TypedDict, total=False):
    """What one request to a worker has cost.

    Attributes:
        seconds: Wall time of each repetition.
        cpu: Seconds of processor time, of all threads, for all repetitions.
        kernel: Those of them that were spent in the kernel.
        before: Resident bytes before.
        peak: The most resident bytes meanwhile.
        held: Resident bytes that an action says it holds at its height, beyond those before it.
        threads: Threads at that time.
    """

    seconds: list[float]
    cpu: float
    kernel: float
    before: int
    peak: int
    held: int
    threads: int


def resident() -> int:
    """The resident memory of this process, in bytes."""
    return _field("VmRSS") * _KIB


def threads() -> int:
    """How many threads this process has."""
    return _field("Threads")


def measured(action: Callable[[], Sample | None], times: int) -> Sample:
    """Do something so many times; what the action tells of itself replaces what is measured from outside."""
    gc.collect()
    before = resident()
    Path("/proc/self/clear_refs").write_text("5")  # lets the peak begin anew
    told: Sample = {}
    took = []
    cpu, kernel = _cpu()
    for _ in range(times):
        start = time.perf_counter()
        said = action()
        took.append(time.perf_counter() - start)
        told.update(said or {})
    cpu_after, kernel_after = _cpu()
    spent: Sample = {"cpu": cpu_after - cpu, "kernel": kernel_after - kernel}
    return {"seconds": took, **spent, "before": before, "peak": _field("VmHWM") * _KIB, **told}


def _cpu() -> tuple[float, float]:
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime, used.ru_stime


def _field(name: str) -> int:
    for line in _STATUS.read_text().splitlines():
        if line.startswith(f"{name}:"):
            return int(line.split()[1])
    raise LookupError(f"{_STATUS} does not tell {name}")
