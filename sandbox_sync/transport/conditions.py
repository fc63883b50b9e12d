"""Waiting for other threads, so that signals are felt and do no harm.

What a signal handler raises may strike anywhere in the main thread's Python code. Within an event or a
condition, which are written in Python, it may leave a lock taken for ever, or come out as a RuntimeError
about that lock, and Ctrl-C is lost. The locks themselves are written in C, and are taken and freed whole. So
nothing else is waited with.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable

from sandbox_sync.deadlines import Deadline
from sandbox_sync.transport.signals import look_after


class Waiter:
    """A thread that waits until it is woken."""

    def __init__(self) -> None:
        self._owner = os.getpid()
        self._asleep = threading.Lock()
        self._asleep.acquire()

    def wake(self) -> None:
        """End its wait, or the next one. One thread at a time may call this."""
        if self._asleep.locked():
            self._asleep.release()

    def wait(self, deadline: Deadline) -> bool:
        """Wait to be woken; False if the time was up first, or in a child that a signal handler forked."""
        while True:
            left = deadline.sooner(look_after()).remaining()
            if self._asleep.acquire(timeout=-1 if left is None else min(left, threading.TIMEOUT_MAX)):
                return True
            if deadline.expired or os.getpid() != self._owner:
                return False


class Condition:
    """A condition variable: a lock, and news of what has changed under it.

    Attributes:
        lock: To be held by who changes something or looks. It is re-entrant: a signal handler may do so, too.
        count: How often there was news.
        owner: The process that it is of.
    """

    def __init__(self) -> None:
        self.lock = threading.RLock()
        self.count = 0
        self.owner = os.getpid()
        self._waiters: list[Waiter] = []

    @property
    def is_inherited(self) -> bool:
        """Whether this process is a fork of its owner, in which the lock may be held for ever."""
        return os.getpid() != self.owner

    def notify_all(self) -> None:
        """Have who waits look again. Only with the lock."""
        self.count += 1
        while self._waiters:
            self._waiters.pop().wake()

    def wait_for(self, so: Callable[[], bool], deadline: Deadline) -> bool:
        """Wait until something is so, without the lock; False if the time was up first, as in `Waiter.wait`.

        Args:
            so: Whether it is so; called with the lock.
            deadline: Until when to wait.
        """
        if self._is(so):
            return True
        waiter = Waiter()
        try:
            while True:
                with self.lock:
                    if so():
                        return True
                    if waiter not in self._waiters:
                        self._waiters.append(waiter)
                if not waiter.wait(deadline):
                    return not self.is_inherited and self._is(so)
        finally:
            if not self.is_inherited:
                with self.lock:
                    if waiter in self._waiters:
                        self._waiters.remove(waiter)

    def wait_beyond(self, count: int, deadline: Deadline) -> bool:
        """Wait until there has been more news than so much; False if the time was up first."""
        return self.wait_for(lambda: self.count > count, deadline)

    def _is(self, so: Callable[[], bool]) -> bool:
        with self.lock:
            return so()
