"""The processes of this machine, as the kernel shows them."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

Result = TypeVar("Result")

_MINE = Path("/proc/thread-self/schedstat")


def pids() -> list[int]:
    """Every process of this machine."""
    return [int(name) for name in os.listdir("/proc") if name.isdigit()]


def command(pid: int) -> str:
    """Command line of a process, "" if there is none."""
    try:
        return Path(f"/proc/{pid}/cmdline").read_text().replace("\0", " ")
    except OSError:
        return ""


def started(pid: int) -> int | None:
    """When a process was started, in clock ticks since the machine was; None if it has ended, even if nobody
    has noticed. Together with the number it names a process for ever."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        return None if fields[0] in "ZX" else int(fields[19])
    except OSError:
        return None


def is_running(pid: int) -> bool:
    """Whether a process exists and is no zombie."""
    return started(pid) is not None


def namespaces(pid: int) -> set[str]:
    """The namespaces that a process is in."""
    found = set()
    for kind in ("pid", "net", "mnt", "user"):
        try:
            found.add(os.readlink(f"/proc/{pid}/ns/{kind}"))
        except OSError:
            pass
    return found


def descendants(root: int) -> set[int]:
    """Children of a process, their children, and so on."""
    parent_of = parents()
    found: set[int] = set()
    while more := {pid for pid, parent in parent_of.items() if parent in found | {root}} - found:
        found |= more
    return found


def idle_time(work: Callable[[], Result], *roots: int) -> tuple[float, Result]:
    """How long some work waits for anything but a processor, in seconds, and its result.

    A busy machine does not prolong it. Where several run at once, the time of each is taken off, so it may be
    negative.

    Args:
        work: What to do.
        roots: The processes that do it, with all their descendants.
    """
    before = _occupied(roots)
    mine, began = _seconds(_MINE), time.monotonic()
    result = work()
    taken, mine = time.monotonic() - began, _seconds(_MINE) - mine
    return taken - mine - sum(now - before.get(thread, 0) for thread, now in _occupied(roots).items()), result


def _occupied(roots: tuple[int, ...]) -> dict[str, float]:
    """How many seconds each thread has run or waited for a processor, but for this one."""
    found = {}
    for pid in {*roots}.union(*map(descendants, roots)):
        for schedule in Path(f"/proc/{pid}/task").glob("*/schedstat"):
            try:
                found[schedule.parent.name] = _seconds(schedule)
            except OSError:
                pass
    found.pop(str(threading.get_native_id()), None)
    return found


def _seconds(schedule: Path) -> float:
    ran, waited, _ = schedule.read_text().split()
    return (int(ran) + int(waited)) / 1e9


def first_process(pid: int) -> int:
    """The process that is number 1 in the PID namespace of another."""
    wanted = os.readlink(f"/proc/{pid}/ns/pid")
    for other in pids():
        try:
            inside = Path(f"/proc/{other}/status").read_text().partition("NSpid:")[2].split("\n")[0].split()
            if inside[-1:] == ["1"] and os.readlink(f"/proc/{other}/ns/pid") == wanted:
                return other
        except OSError:
            pass
    raise LookupError(f"nobody is number 1 in {wanted}")


def children(pid: int) -> list[int]:
    """The processes that a process has started, or adopted, and that have not been reaped."""
    return sorted(child for child, parent in parents().items() if parent == pid)


def parents() -> dict[int, int]:
    """Every process of this machine, and its parent."""
    found = {}
    for pid in pids():
        try:
            found[pid] = int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])
        except OSError:
            pass
    return found
