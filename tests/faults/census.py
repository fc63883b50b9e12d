"""What there is of a server: counted before and after what should leave nothing behind.

Nobody but root may look into launcher and agents, which are not dumpable: not even the user who runs them.
Tests of such a user go by what everybody may see, which is coarser.
"""

from __future__ import annotations

import operator
import os
import re
import time
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from tests.faults.servers import FaultServer
from tests.processes import command, descendants, is_running, namespaces, pids, started

_ROOM = 256
"""For descriptors: that much may come and go."""

SECONDS = 10.0
"""Within which all must be gone; what the kernel takes apart in the background takes some tenths."""


def until(condition: Callable[[], object], what: Callable[[], object], seconds: float = SECONDS) -> None:
    """Wait for what nothing tells of.

    Raises:
        AssertionError: It has not come about in time.
    """
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, what()
        time.sleep(0.01)


class Census(NamedTuple):
    """Numbers of things.

    Attributes:
        processes: Of the server and all that descends from it.
        descriptors: Open ones of the server and of its launcher.
        mounts: That the launcher sees.
        spaces: Namespaces that its processes are in.
        threads: Of the server.
    """

    processes: int
    descriptors: tuple[int, ...]
    mounts: int
    spaces: int
    threads: int

    @classmethod
    def of(cls, server: FaultServer) -> Census:
        """Count."""
        launchers = server.launchers()
        tree = {server.pid, *descendants(server.pid)}
        return cls(
            processes=len(tree),
            descriptors=tuple(_descriptors(pid) for pid in (server.pid, *launchers)),
            mounts=len(Path(f"/proc/{launchers[-1]}/mountinfo").read_text().splitlines()),
            spaces=len(set().union(*(namespaces(pid) for pid in tree))),
            threads=len(os.listdir(f"/proc/{server.pid}/task")),
        )

    def grown(self, before: Census) -> dict[str, tuple[object, object]]:
        """What is more than it was; threads only beyond those that a server keeps for work to come."""
        more = {
            "processes": self.processes > before.processes,
            "descriptors": any(map(operator.gt, self.descriptors, before.descriptors)),
            "mounts": self.mounts > before.mounts,
            "spaces": self.spaces > before.spaces,
            "threads": self.threads > max(before.threads, most_threads()),
        }
        return {name: (getattr(before, name), getattr(self, name)) for name in more if more[name]}


def wait_until_as_before(server: FaultServer, before: Census) -> None:
    """Wait until a server has nothing that it had not."""
    until(
        lambda: not Census.of(server).grown(before), lambda: (Census.of(server).grown(before), _tree(server))
    )


def most_threads() -> int:
    """The threads that a server has at most: its own, and those of asyncio's pool for work that blocks."""
    return 1 + min(32, (os.cpu_count() or 1) + 4)


def memory(server: FaultServer) -> int:
    """Bytes of memory of a server and its launcher, what they share counted once."""
    return sum(_proportional(pid) for pid in (server.pid, *server.launchers()))


class Remains:
    """What must be gone with a server: noted while it lives."""

    def __init__(self, server: FaultServer) -> None:
        own = namespaces(os.getpid())
        self._pids = {pid: started(pid) for pid in (server.pid, *descendants(server.pid))}
        # Numbers of namespaces are used again, so who came later is a stranger.
        self._latest = max(filter(None, self._pids.values()))
        self._spaces = set().union(*(namespaces(pid) for pid in self._pids)) - own
        self._mounts = Path("/proc/self/mountinfo").read_text()

    def wait_until_gone(self) -> None:
        """Wait until no process runs, and none is in a namespace, that belonged to it."""
        until(lambda: not self._left(), self._left)
        assert Path("/proc/self/mountinfo").read_text() == self._mounts

    def _left(self) -> list[str]:
        running = [pid for pid, at in self._pids.items() if at is not None and started(pid) == at]
        inside = [
            pid
            for pid in pids()
            if (at := started(pid)) is not None
            and at <= self._latest
            and self._spaces.intersection(namespaces(pid))
        ]
        return [f"{pid}: {command(pid)}" for pid in {*running, *inside}]


class Inhabitants:
    """The processes in the PID namespace of an agent, or where that can't be seen, its descendants of now."""

    def __init__(self, agent: int) -> None:
        self._descend: dict[int, int | None] = {}
        try:
            self._space = os.readlink(f"/proc/{agent}/ns/pid")
        except PermissionError:
            self._space = ""
            self._descend = {pid: started(pid) for pid in (agent, *descendants(agent))}

    def wait_until_gone(self) -> None:
        """Wait until none runs."""
        until(lambda: not self._left(), self._left)

    def _left(self) -> list[str]:
        """Those that run."""
        found = [
            f"{pid}: {command(pid)}"
            for pid, at in self._descend.items()
            if at is not None and started(pid) == at
        ]
        for pid in pids():
            try:
                if os.readlink(f"/proc/{pid}/ns/pid") == self._space and is_running(pid):
                    found.append(f"{pid}: {command(pid)}")
            except OSError:
                pass
        return found


def _descriptors(pid: int) -> int:
    try:
        return len(os.listdir(f"/proc/{pid}/fd"))
    except PermissionError:
        # The room for them, which grows by doubling and never shrinks: a loss each time would show.
        return max(_told(pid, "status", "FDSize"), _ROOM)


def _proportional(pid: int) -> int:
    try:
        return _told(pid, "smaps_rollup", "Pss") << 10
    except PermissionError:
        return _told(pid, "status", "VmRSS") << 10


def _told(pid: int, file: str, name: str) -> int:
    """A number that the kernel tells of a process."""
    found = re.search(rf"^{name}:\s+(\d+)", Path(f"/proc/{pid}/{file}").read_text(), re.MULTILINE)
    assert found is not None
    return int(found[1])


def _tree(server: FaultServer) -> list[str]:
    return [f"{pid}: {command(pid)}" for pid in descendants(server.pid)]
