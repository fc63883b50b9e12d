"""What this process has open."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from contextlib import contextmanager

_MOMENT = 5.0


def descriptors() -> set[tuple[int, str]]:
    """Every descriptor with what it stands for; pipes and sockets have numbers that no other has."""
    found = set()
    for name in os.listdir("/proc/self/fd"):
        try:
            found.add((int(name), os.readlink(f"/proc/self/fd/{name}")))
        except OSError:
            pass  # that of the list itself
    return found


@contextmanager
def none_left_open() -> Iterator[None]:
    """Make sure that what is open afterwards was open before, or is closed within seconds.

    What earlier tests left in this process is not of this test: it may go when the collector comes by, and
    gRPC opens sockets now and then, and closes them, to reach servers that are gone.
    """
    before = descriptors()
    yield
    deadline = time.monotonic() + _MOMENT
    while left := descriptors() - before:
        assert time.monotonic() < deadline, left
        time.sleep(0.05)
