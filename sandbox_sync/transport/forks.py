"""What a forked child has to make anew, whoever has forked it.

`os.fork` runs what is registered with it. A server that forks in C need not: uWSGI does not unless it is told
to. So whatever hands out something that belongs to a process has the process id looked at first.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable

_renewals: list[Callable[[], object]] = []
_renewed_in = os.getpid()
# One for each process: another thread of the parent may have held the parent's when it was forked.
_locks: dict[int, threading.Lock] = {}


def in_child(renew: Callable[[], object]) -> None:
    """Have a function called in each forked child, once, before anything of this SDK is used there."""
    _renewals.append(renew)


def check() -> None:
    """Make sure that what this process inherited has been dealt with."""
    here = os.getpid()
    if here != _renewed_in:
        with _locks.setdefault(here, threading.Lock()):
            if here != _renewed_in:
                _renew()


def _renew() -> None:
    global _renewed_in
    for renew in _renewals:
        renew()
    _renewed_in = os.getpid()


os.register_at_fork(after_in_child=_renew)
