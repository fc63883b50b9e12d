"""Leases: sandboxes that end soon after the process that renews their lifetime does, however it ends.

One thread per process keeps the time. Renewals are made by threads that live while there are any,
so that a slow one holds up no other.
"""

from __future__ import annotations

import contextvars
import heapq
import os
import time
import weakref
from collections import deque
from collections.abc import Callable
from itertools import count
from typing import TYPE_CHECKING

from sandbox_sync._later import later
from sandbox_sync.config import ConnectionConfig
from sandbox_sync.deadlines import Deadline
from sandbox_sync.errors import (
    ConflictException,
    InvalidArgumentException,
    SandboxException,
    SandboxNotFoundException,
)
from sandbox_sync.transport import forks, threads
from sandbox_sync.transport.conditions import Condition

if TYPE_CHECKING:
    from sandbox_sync import lifecycle
else:
    lifecycle = later("sandbox_sync.lifecycle")

SHORTEST = 3

_MOST_WORKERS = 32
_LEAST_ATTEMPT = 1.0  # seconds: a process that was stopped for longer than the lease still asks once


def lifetime(timeout: int | None, lease: int | None) -> int | None:
    """The lifetime to ask the service for.

    Raises:
        InvalidArgumentException: The lease cannot be one, or there is a timeout as well.
    """
    if lease is None:
        return timeout
    if not isinstance(lease, int) or isinstance(lease, bool) or lease < SHORTEST:
        raise InvalidArgumentException(
            f"lease has to be a whole number of seconds, {SHORTEST} or more; got {lease!r}"
        )
    if timeout is not None:
        raise InvalidArgumentException(
            "timeout and lease exclude each other: a leased sandbox lives as long as its lease is renewed. "
            "Leave one of them out"
        )
    return lease


class Lease:
    """A promise to renew a sandbox's lifetime, kept for as long as anything refers to this object.

    Args:
        config: How the service is reached.
        sandbox_id: The sandbox.
        seconds: How long the sandbox outlives the last renewal.
        since: Reading of the monotonic clock at which its lifetime was last set.
    """

    def __init__(self, config: ConnectionConfig, sandbox_id: str, seconds: int, since: float) -> None:
        self.seconds = seconds
        self.ended = False
        self.renewing = False
        self.until = since + seconds
        self.pid = os.getpid()
        self._config = config
        self._sandbox_id = sandbox_id

    def end(self) -> None:
        """Renew no more, and return when no renewal is under way. In a fork this changes nothing."""
        if self.pid == os.getpid():
            _heart.forget(self)

    def renew(self) -> float | None:
        """Renew it once, in a bounded time.

        Returns:
            Reading of the clock at which to renew it next; None if it is over.
        """
        began = time.monotonic()
        limit = max(_LEAST_ATTEMPT, min(self.until - began, self.seconds / 3))
        log = self._config.log
        try:
            lifecycle.set_timeout(self._config, self._sandbox_id, self.seconds, limit)
        except (SandboxNotFoundException, ConflictException) as error:
            if not self.ended:
                log.info("sandbox %s runs no more, its lease is over: %s", self._sandbox_id, error)
            return None
        except SandboxException as error:
            if self.ended:
                return None
            now = time.monotonic()
            left = self.until - now
            if left <= 0:
                log.warning("sandbox %s: its lease was not renewed and lapses: %s", self._sandbox_id, error)
                return None
            log.warning(
                "sandbox %s: its lease was not renewed, is tried again, and lapses in %.1f s: %s",
                self._sandbox_id,
                left,
                error,
            )
            return now + min(max(0.2, self.seconds / 12), left)
        self.until = began + self.seconds
        return began + self.seconds / 3


class _Heart:
    """The leases of this process. Its lock is held for no longer than it takes to look."""

    def __init__(self) -> None:
        self._changed = Condition()
        self._order = count()
        self._by_time: list[tuple[float, int, weakref.ref[Lease]]] = []
        self._due: deque[weakref.ref[Lease]] = deque()
        self._beats = False
        self._workers = 0

    def add(self, lease: Lease, at: float) -> None:
        """Renew a lease from a time on."""
        with self._changed.lock:
            heapq.heappush(self._by_time, (at, next(self._order), weakref.ref(lease)))
            if not self._beats:
                _start("sandbox-sync-leases", self._beat)
                self._beats = True
            self._changed.notify_all()

    def forget(self, lease: Lease) -> None:
        """Renew it no more, and wait for the renewal that may be under way."""
        lease.ended = True
        never = Deadline.after(None)  # it takes no longer than the limit of a renewal
        self._changed.wait_for(lambda: not lease.renewing, never)

    def _beat(self) -> None:
        while True:
            with self._changed.lock:
                if not self._by_time and not self._due:
                    self._beats = False
                    return
                known = self._changed.count
                wait = self._see_to_renewals()
            self._changed.wait_beyond(known, Deadline.after(wait))

    def _see_to_renewals(self) -> float | None:
        """Have those renewed that are due; seconds until others will be."""
        now = time.monotonic()
        while self._by_time and self._by_time[0][0] <= now:
            self._due.append(heapq.heappop(self._by_time)[2])
        try:
            for _ in range(min(len(self._due), _MOST_WORKERS - self._workers)):
                _start("sandbox-sync-lease-renewal", self._work)
                self._workers += 1
        except SandboxException:
            return 0.5  # there may be room for a thread again
        return self._by_time[0][0] - now if self._by_time else None

    def _work(self) -> None:
        try:
            while self._renew_one():
                pass
        finally:
            with self._changed.lock:
                self._workers -= 1
                self._changed.notify_all()

    def _renew_one(self) -> bool:
        with self._changed.lock:
            lease = self._take()
        if lease is None:
            return False
        at = None
        try:
            at = lease.renew()
        finally:
            with self._changed.lock:
                lease.renewing = False
                if at is not None and not lease.ended:
                    self.add(lease, at)
                self._changed.notify_all()
        return True

    def _take(self) -> Lease | None:
        while self._due:
            lease = self._due.popleft()()
            if lease is not None and not lease.ended:
                lease.renewing = True
                return lease
        return None


def hold(
    config: ConnectionConfig, sandbox_id: str, seconds: int, since: float, *, now: bool = False
) -> Lease:
    """Renew a sandbox's lifetime from now on, for as long as the result is referred to.

    Args:
        config: How the service is reached.
        sandbox_id: The sandbox.
        seconds: How long the sandbox outlives the last renewal.
        since: Reading of the monotonic clock at which its lifetime was last set.
        now: Whether to begin at once: its lifetime may be another one still.

    Raises:
        SandboxException: The system allows no more threads.
    """
    forks.check()
    lease = Lease(config, sandbox_id, seconds, since)
    _heart.add(lease, since if now else since + seconds / 3)
    return lease


def _start(name: str, target: Callable[[], None]) -> None:
    run = contextvars.Context().run  # an empty one: nothing of the caller's bounds or tags a renewal
    threads.start(name, run, target)


_heart = _Heart()


def _after_fork() -> None:
    """A fork has neither the threads nor the locks' holders; its parent renews what it has."""
    global _heart
    _heart = _Heart()


forks.in_child(_after_fork)
