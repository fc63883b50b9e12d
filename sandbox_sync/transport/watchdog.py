"""One thread that ends what has taken too long, for calls that cannot watch the time themselves."""

from __future__ import annotations

import time
import weakref
from collections.abc import Callable
from typing import Literal

from sandbox_sync.deadlines import Deadline
from sandbox_sync.transport import forks, threads
from sandbox_sync.transport.conditions import Condition

Bound = Literal["deadline", "silence"]


class Watch:
    """What bounds one call.

    Args:
        end: Ends the call; it may be called from any thread.

    Attributes:
        expired: The bound that was overstepped, after which the call was ended.
    """

    def __init__(self, end: Callable[[], object]) -> None:
        self.expired: Bound | None = None
        self._end = end
        self._deadline = Deadline.after(None)
        self._silence: float | None = None
        self._heard = time.monotonic()

    def limit(self, deadline: Deadline, silence: float | None) -> None:
        """Set the bounds, in place of earlier ones."""
        self._heard = time.monotonic()
        self._deadline = deadline
        self._silence = silence

    def heard(self) -> None:
        """Note a sign of life."""
        self._heard = time.monotonic()

    def left(self) -> float | None:
        """Seconds until the call is to be ended; None for never."""
        return self._deadline.sooner(
            None if self._silence is None else self._heard + self._silence - time.monotonic()
        ).remaining()

    def check(self) -> None:
        """End the call if its time is up."""
        if self.left() == 0.0:
            self.expired = "deadline" if self._deadline.expired else "silence"
            self.limit(Deadline.after(None), None)
            self._end()


class Watchdog:
    """Checks watches when they are due, in a thread that it starts with the first."""

    def __init__(self) -> None:
        self._watches: list[weakref.ref[Watch]] = []  # a set would have Python code run when one goes
        self._changed = Condition()
        self._running = False

    def add(self, watch: Watch) -> None:
        """Check this watch, from now on, for as long as anyone else knows it.

        Raises:
            SandboxException: No thread can be started to check it.
        """
        with self._changed.lock:
            self._watches.append(weakref.ref(watch))
            self._changed.notify_all()
            if not self._running:
                threads.start("sandbox-sync-watchdog", self._run)
                self._running = True  # only now: where it could not start, the next call is to try again

    def _run(self) -> None:
        while True:
            known = self._changed.count
            self._changed.wait_beyond(known, Deadline.after(self._check()))

    def _check(self) -> float | None:
        """End the calls whose time is up; seconds until that of another one is."""
        with self._changed.lock:
            watches = [watch for reference in self._watches if (watch := reference())]
            self._watches = [weakref.ref(watch) for watch in watches]
        for watch in watches:
            watch.check()
        return min((left for watch in watches if (left := watch.left()) is not None), default=None)


_started: list[Watchdog] = []
forks.in_child(_started.clear)


def watchdog() -> Watchdog:
    """This process's watchdog. A forked child gets another: the thread of its parent's does not run there."""
    forks.check()
    if not _started:
        _started.append(Watchdog())
    return _started[0]
