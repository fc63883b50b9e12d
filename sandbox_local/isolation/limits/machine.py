"""What of this machine the server may use at all."""

from __future__ import annotations

import functools
import os

from sandbox_local.isolation.limits import hierarchy


@functools.cache
def memory() -> int:
    """Bytes of memory: the machine's, or what a control group around this process leaves of it."""
    installed = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    try:
        bound = hierarchy.memory_bound()
    except OSError:
        bound = None
    return min(installed, bound or installed)


def processors() -> int:
    """The number of processors."""
    return len(os.sched_getaffinity(0))
