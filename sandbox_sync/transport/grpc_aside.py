"""What waits for grpcio in the main thread's place, so that signals are felt there at once.

Python runs the handlers of signals in the main thread only, and grpcio looks for them every 0.2 s while it
waits. So another thread waits for grpcio, and the main thread waits for that one: in a queue that signals
interrupt, and that an error out of a handler, wherever it strikes, cannot leave locked. Other threads wait
for grpcio themselves, which is faster.
"""

from __future__ import annotations

import os
import sys
import threading
from _thread import get_ident, start_new_thread
from collections.abc import Callable
from contextvars import copy_context
from queue import Empty, SimpleQueue
from typing import Any, Final, Generic, TypeVar

import grpc

from sandbox_sync.transport import forks
from sandbox_sync.transport.failures import RpcFailure
from sandbox_sync.transport.green import gevent_patched
from sandbox_sync.transport.grpc_connections import in_flight, keep_from_children

T = TypeVar("T")
R = TypeVar("R")

# How many messages are fetched before anybody asks for them: memory is bounded, and servers are held back.
_AHEAD = 16
# How long the end of a call that was cancelled is waited for. It takes far less, unless the machine is stuck.
_END_SECONDS = 1.0
# For what wakes nobody who waits in a queue, such as `_thread.interrupt_main`.
_LOOK_SECONDS = 0.2
# Threads that are kept for the next call.
_MOST_IDLE = 2


def is_interruptible() -> bool:
    """Whether this is the thread that signals interrupt, and one in which another thread can wait for it."""
    return (
        get_ident() == threading.main_thread().ident
        and not gevent_patched()
        and not sys.is_finalizing()  # other threads do not run any more
    )


class _Threads:
    """Threads that do the main thread's waiting, one job at a time; who has none to do waits for the next."""

    def __init__(self) -> None:
        self._jobs: SimpleQueue[Callable[[], object]] = SimpleQueue()
        self._idle: SimpleQueue[None] = SimpleQueue()

    def start(self, job: Callable[[], object]) -> None:
        """Have a job done; in this thread if the system allows no more."""
        try:
            self._idle.get_nowait()
        except Empty:
            try:
                # Not `threading.Thread`, whose start waits: a signal could strike there.
                start_new_thread(self._work, (job,))
            except RuntimeError:
                job()
        else:
            self._jobs.put(job)

    def _work(self, job: Callable[[], object] | None) -> None:
        while job is not None:
            job()
            job = None  # it holds a call
            if self._idle.qsize() < _MOST_IDLE:
                self._idle.put(None)
                job = self._jobs.get()


_started: list[_Threads] = []
forks.in_child(_started.clear)


def _threads() -> _Threads:
    """Those of this process: a forked child has none of its parent's."""
    forks.check()
    if not _started:
        _started.append(_Threads())
    return _started[0]


def _next_of(queue: SimpleQueue[T]) -> T:
    owner = os.getpid()
    while True:
        try:
            return queue.get(timeout=_LOOK_SECONDS)
        except Empty:
            if owner != os.getpid():  # a handler has forked, and returned in the child
                words = "the call belongs to the process that this one was forked from"
                raise RpcFailure(words, code="unavailable", reason="broken") from None


def drain(call: Any) -> None:
    """End a call, and fetch the last event: gRPC keeps its connection until somebody has."""
    call.cancel()
    try:
        for _ in call:
            pass
    except grpc.RpcError:
        pass


class Errand(Generic[R]):
    """One call with one answer, made in another thread.

    Args:
        begin: Begins it.
        finish: Waits for its end and gives the answer.
    """

    def __init__(self, begin: Callable[[], Any], finish: Callable[[Any], R]) -> None:
        self._begin = begin
        self._finish = finish
        self._call: Any = None
        self._given_up = False
        self._owner = os.getpid()
        self._outcome: SimpleQueue[tuple[R | None, BaseException | None]] = SimpleQueue()
        keep_from_children(self)

    def run(self) -> R | None:
        """Make the call. Whatever interrupts this ends the call, too.

        Raises:
            BaseException: What `begin` or `finish` raised.
        """
        context = copy_context()  # the iterators of callers run in it
        try:
            _threads().start(lambda: context.run(self._run))
            answer, error = _next_of(self._outcome)
        except BaseException:
            self._give_up()
            raise
        if error is not None:
            try:
                raise error
            finally:
                error = None  # it holds this frame
        return answer

    def _run(self) -> None:
        answer: R | None = None
        failed: BaseException | None = None
        try:
            with in_flight():
                self._call = self._begin()
                if self._given_up:
                    self._call.cancel()
                try:
                    answer = self._finish(self._call)
                finally:
                    self._call = None
        except BaseException as error:  # noqa: BLE001  # is raised in `run`
            failed = error
        self._outcome.put((answer, failed))

    def _give_up(self) -> None:
        self._given_up = True
        call = self._call
        if call is None or self._owner != os.getpid():
            return
        call.cancel()
        try:
            self._outcome.get(timeout=_END_SECONDS)
        except Empty:
            pass


class _End:
    """Comes after the last message, with the error if there is one."""

    def __init__(self, error: BaseException | None) -> None:
        self.error: Final = error


class Ahead:
    """Fetches the messages of a stream in another thread, some before they are asked for.

    Args:
        call: The call. Nobody else may read it while messages are owed.
        heard: Is told when one arrives.

    Attributes:
        owed: How many messages the other thread was told to fetch that have not been taken.
    """

    def __init__(self, call: Any, heard: Callable[[], None]) -> None:
        self.owed = 0
        self._call = call
        self._heard = heard
        self._items: SimpleQueue[Any] = SimpleQueue()
        # The first is often all that this thread wants: what goes on in the background is read there.
        self._most = 1
        self._unclaimed: list[None] = []
        self._abandoned: Callable[[], None] | None = None

    def take(self) -> Any:
        """The next message.

        Raises:
            StopIteration: There is none.
            grpc.RpcError: The call failed.
        """
        if self.owed == 0:
            self.owed, self._most = self._most, _AHEAD
            self._unclaimed.append(None)
            count = self.owed
            _threads().start(lambda: self._fetch(count))
        item = _next_of(self._items)
        self.owed -= 1
        if type(item) is not _End:
            return item
        self.owed = 0
        raise StopIteration if item.error is None else item.error

    def end(self, done: Callable[[], None]) -> None:
        """Cancel the call, and see to it that its last event is fetched.

        Args:
            done: Is called when it has been; by the other thread if that takes long.
        """
        self._call.cancel()
        self._abandoned = done
        if self.owed and not self._claim() and not self._has_left():
            return  # the other thread is in it
        drain(self._call)
        done()

    def _claim(self) -> bool:
        """Whether the caller is the first to ask: the other thread, or who ends the call before it begins."""
        try:
            self._unclaimed.pop()
        except IndexError:
            return False
        return True

    def _has_left(self) -> bool:
        if sys.is_finalizing():  # it never will
            return False
        try:
            while self.owed and type(self._items.get(timeout=_END_SECONDS)) is not _End:
                self.owed -= 1
        except Empty:
            return False
        return True

    def _fetch(self, count: int) -> None:
        if not self._claim():
            return
        try:
            for _ in range(count):
                message = next(self._call)
                self._heard()
                self._items.put(message)
        except StopIteration:
            self._items.put(_End(None))
        except BaseException as error:  # noqa: BLE001  # is raised in `take`
            self._items.put(_End(error.with_traceback(None)))
        if self._abandoned is not None:
            self._abandoned()
