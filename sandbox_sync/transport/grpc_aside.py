"""What is done with grpcio in the main thread's place, so that signals are felt there at once and do no harm.

Python runs the handlers of signals in the main thread only, and grpcio looks for them every 0.2 s while it
waits. And where a handler raises an error within grpcio, a lock may stay taken that all calls need, and every
thread hangs. So another thread makes the calls, and the main thread waits for that one: in a queue that
signals interrupt, and that no error can leave locked. Other threads use grpcio themselves: it is faster.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from contextvars import copy_context
from functools import partial
from queue import Empty, SimpleQueue
from typing import Any, Final, Generic, TypeVar, cast

import grpc

from sandbox_sync.errors import SandboxException
from sandbox_sync.transport import forks, threads
from sandbox_sync.transport.failures import RpcFailure
from sandbox_sync.transport.grpc_connections import in_flight, keep_from_children
from sandbox_sync.transport.signals import LOOK_SECONDS, signals_strike_here

T = TypeVar("T")
R = TypeVar("R")

# How many messages are fetched before anybody asks for them: memory is bounded, and servers are held back.
_AHEAD = 16
# How long the end of a call that was cancelled is waited for. It takes far less, unless the machine is stuck.
_END_SECONDS = 1.0
# Threads that are kept for the next call.
_MOST_IDLE = 2


def is_interruptible() -> bool:
    """Whether this is the thread that signals interrupt, and one in which another thread can wait for it."""
    return signals_strike_here() and not sys.is_finalizing()  # other threads do not run any more


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
                threads.start("sandbox-sync-grpc", self._work, job)
            except SandboxException:
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
            return queue.get(timeout=LOOK_SECONDS)
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


def cancel(call: Any) -> None:
    """Cancel a call, in whichever thread may."""
    if is_interruptible():
        _threads().start(call.cancel)
    else:
        call.cancel()


class Errand(Generic[R]):
    """A call that another thread begins, and makes as far as an answer needs it.

    Args:
        begin: Begins it.
        finish: Gives the answer.

    Attributes:
        then: What that thread does when it has given the answer.
    """

    def __init__(self, begin: Callable[[], Any], finish: Callable[[Any], R]) -> None:
        self.then: Callable[[], object] | None = None
        self._begin = begin
        self._finish = finish
        self._call: Any = None
        self._given_up = False
        self._owner = os.getpid()
        self._outcome: SimpleQueue[tuple[R | None, BaseException | None]] = SimpleQueue()
        keep_from_children(self)

    def run(self) -> R:
        """Have it done. Whatever interrupts this ends the call, too.

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
        return cast("R", answer)

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
        answer = failed = None  # they are the caller's, who may drop them
        if self.then is not None:
            self.then()

    def _give_up(self) -> None:
        self._given_up = True
        if self._owner != os.getpid():
            return
        call = self._call
        if call is not None:
            cancel(call)
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
        is_over: Whether the end has been seen.
    """

    def __init__(self, call: Any, heard: Callable[[], None]) -> None:
        self.owed = 0
        self.is_over = False
        self._call = call
        self._heard = heard
        self._items: SimpleQueue[Any] = SimpleQueue()
        # The first is often all that this thread wants: what goes on in the background is read there.
        self._most = 1
        # For who ends the call: that the other thread has not begun, and that it has left. What was taken is
        # no measure of it, for a signal may have struck between the taking and the counting.
        self._unclaimed: list[None] = [None]
        self._left: SimpleQueue[None] = SimpleQueue()
        self._abandoned: Callable[[], None] | None = None

    def take(self) -> Any:
        """The next message.

        Raises:
            StopIteration: There is none.
            grpc.RpcError: The call failed.
        """
        if self.owed == 0:
            _threads().start(self.job())
        item = _next_of(self._items)
        self.owed -= 1
        if type(item) is not _End:
            return item
        self.owed, self.is_over = 0, True
        raise StopIteration if item.error is None else item.error

    def job(self) -> Callable[[], None]:
        """What the other thread has to do so that there is something to take."""
        self._left = SimpleQueue()
        self._unclaimed = [None]
        self.owed, self._most = self._most, _AHEAD
        return partial(self._fetch, self.owed, self._left)

    def end(self, done: Callable[[], None], wait: bool = True) -> None:
        """Cancel the call, and see to it that its last event is fetched.

        Args:
            done: Is called when it has been.
            wait: Wait for that, unless it takes long.
        """
        if self.is_over:
            done()
        elif is_interruptible():
            ended: SimpleQueue[None] = SimpleQueue()

            def job() -> None:
                self._end(done)
                ended.put(None)

            _threads().start(job)
            if wait:
                try:
                    ended.get(timeout=_END_SECONDS)
                except Empty:
                    pass
        else:
            self._end(done)

    def _end(self, done: Callable[[], None]) -> None:
        self._call.cancel()
        self._abandoned = done
        if not self._claim() and not self._has_left():
            return  # the other thread is in it
        drain(self._call)
        self.is_over = True
        done()

    def _claim(self) -> bool:
        """Whether the caller is the first to ask: the other thread, or who ends the call before it begins."""
        try:
            self._unclaimed.pop()
        except IndexError:
            return False
        return True

    def _has_left(self) -> bool:
        """Whether the other thread is done with the call, or soon enough."""
        if sys.is_finalizing():  # it never will be
            return False
        try:
            self._left.get(timeout=_END_SECONDS)
        except Empty:
            return False
        return True

    def _fetch(self, count: int, left: SimpleQueue[None]) -> None:
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
        left.put(None)
        if self._abandoned is not None:
            self._abandoned()
