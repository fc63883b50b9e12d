"""Taking note of children that have ended."""

from __future__ import annotations

import os
from collections.abc import Iterator


def reaped() -> Iterator[tuple[int, int]]:
    """The process id and wait status of each child that has ended, adopted orphans included."""
    while True:
        try:
            pid, status = os.waitpid(-1, os.WNOHANG)
        except ChildProcessError:
            return
        if pid == 0:
            return
        yield pid, status
