"""What this process has open."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager


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
    """Make sure that what is open afterwards was open before.

    Less may be: what earlier tests left goes when the collector comes by.
    """
    before = descriptors()
    yield
    assert not (left := descriptors() - before), left
