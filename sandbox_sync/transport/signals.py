"""The thread that signals interrupt.

Python runs their handlers in the main thread, and a signal interrupts the system call in which that waits.
But one that strikes in the moment before the call does not, and its handler runs when the call returns. So
while the main thread waits for something, it looks up now and then.
"""

from __future__ import annotations

import threading
from _thread import get_ident

from sandbox_sync.transport.green import eventlet_patched, gevent_patched

LOOK_SECONDS = 0.2
"""Seconds after which the main thread looks up."""


def signals_strike_here() -> bool:
    """Whether this is the main thread, and one that waits in system calls."""
    if get_ident() != threading.main_thread().ident:
        return False
    return not gevent_patched() and not eventlet_patched()


def look_after() -> float | None:
    """Seconds after which this thread has to look up; None if no signal strikes here."""
    return LOOK_SECONDS if signals_strike_here() else None
