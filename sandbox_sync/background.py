"""What runs in the background: a thread that records something to its end, while other threads wait for it.

Commands, terminals and watched directories all stand on this.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from contextlib import AbstractContextManager
from types import TracebackType
from typing import Any

from sandbox_sync.ambient import outlasting_context
from sandbox_sync.deadlines import Deadline
from sandbox_sync.errors import ConnectionException, SandboxException
from sandbox_sync.transport import threads
from sandbox_sync.transport.conditions import Condition


def start_thread(name: str, target: Callable[..., Any], *arguments: Any) -> None:
    """Call a function in a thread that no exit waits for, with the caller's context variables.

    A deadline is not among them: what goes on in the background outlasts the block that it was begun in.

    Raises:
        SandboxException: The system allows no more threads.
    """
    threads.start(name, outlasting_context().run, target, *arguments)


class Progress:
    """How far something has come: one thread writes it, any number of threads read it and wait.

    Attributes:
        failure: Why its end will not be seen, once that is so.
    """

    def __init__(self) -> None:
        self.failure: BaseException | None = None
        self._failed_at: TracebackType | None = None
        self._interruption: BaseException | None = None
        self._writer: int | None = None
        self._changed = Condition()

    @property
    def settled(self) -> bool:
        """Whether nothing more will come."""
        return self.failure is not None

    @property
    def is_inherited(self) -> bool:
        """Whether this process is a fork of the one that it belongs to, where the writing thread still is."""
        return self._changed.is_inherited

    def written_here(self) -> None:
        """This thread is the one that writes it, and may not wait for itself: not even in a callback."""
        self._writer = threading.get_ident()

    def fail(self, error: BaseException) -> None:
        """Settle what has no other end; the first reason given stands."""
        explained = self.explain(error)
        with self._changed.lock:
            if not self.settled:
                self._failed_at = explained.__traceback__
                self.failure = explained
            self._changed.notify_all()

    def check(self) -> None:
        """Raise why the end will not be seen, if that is so."""
        if self.failure is not None:
            # Anew from where it came up: each time that it is raised it would grow, and hold on to frames.
            raise self.failure.with_traceback(self._failed_at)

    def explain(self, error: BaseException) -> BaseException:
        """Tell an error what is known."""
        return error

    def interrupt(self, error: BaseException) -> None:
        """Have the next `wait` raise an error of the caller's own functions."""
        with self._changed.lock:
            self._interruption = error
            self._changed.notify_all()

    def wait(self, deadline: Deadline) -> bool:
        """Wait until nothing more will come; False if the time was up first.

        Raises:
            BaseException: What `interrupt` was given, once.
        """
        while True:
            in_time = self._wait(lambda: self.settled or self._interruption is not None, deadline)
            with self._lock():
                interruption, self._interruption = self._interruption, None
                settled = self.settled
            if interruption is not None:
                raise interruption
            if settled or not in_time:  # otherwise another thread was told of the interruption
                return in_time

    @property
    def _remedy(self) -> str:
        """What makes another one, for who cannot use this one."""
        raise NotImplementedError

    def _wait(self, ready: Callable[[], bool], deadline: Deadline) -> bool:
        def so() -> bool:
            if ready():
                return True
            if self._writer == threading.get_ident() and not deadline.expired:
                raise SandboxException(
                    "This would wait for ever: it was called in a callback, and waits for what comes "
                    "after that callback. Return from it first, or call this in another thread"
                )
            return False

        self._require_own()
        in_time = self._changed.wait_for(so, deadline)
        self._require_own()  # a signal handler may have forked
        return in_time

    def _lock(self) -> AbstractContextManager[object]:
        self._require_own()
        return self._changed.lock

    def _require_own(self) -> None:
        if self.is_inherited:  # and the lock may be held for ever
            owner = self._changed.owner
            raise ConnectionException(
                f"This belongs to process {owner}, of which this process is a fork; {self._remedy}"
            )
