"""Killing all processes of a command, which may multiply meanwhile."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable

_ROUNDS = 5
"""So often a tree may grow while it is being killed, before everything is stopped so that it can't."""


class Kill:
    """A command that is being killed."""

    def __init__(self, mark: str, kill_found: Callable[[], set[int]], done: Callable[[], None]) -> None:
        """Begin.

        Args:
            mark: What its processes have in common.
            kill_found: Kills all of them that there are now; returns these.
            done: Called when none is left.
        """
        self.mark = mark
        self._kill_found = kill_found
        self._done = done
        self._seen: set[int] = set()
        self._rounds = 0

    def step(self, frozen: bool) -> bool:
        """Kill what there is; True if there was nothing any more."""
        found = self._kill_found()
        if found - self._seen:
            self._seen |= found
            self._rounds += 1
            if self._rounds > _ROUNDS and not frozen:
                signal_all(signal.SIGSTOP)
                self._kill_found()
                signal_all(signal.SIGCONT)
        if found:
            return False
        self._done()
        return True


def signal_all(signum: int) -> None:
    """Send a signal to every process of the box but this."""
    try:
        os.kill(-1, signum)
    except ProcessLookupError:
        pass  # this process is alone
