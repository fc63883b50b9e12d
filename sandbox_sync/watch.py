"""Watching directories: the handle that `files.watch_dir()` returns."""

from __future__ import annotations

import logging
import math
import time
import weakref
from collections import deque
from collections.abc import Callable, Iterator
from types import TracebackType
from typing import TYPE_CHECKING, Any

from sandbox_sync_rpc import filesystem_pb2

from sandbox_sync.ambient import by, exceeded
from sandbox_sync.background import Progress, start_thread
from sandbox_sync.deadlines import Deadline, seconds
from sandbox_sync.entries import entry_info
from sandbox_sync.errors import (
    CommandTimeoutException,
    EventsLostException,
    SandboxException,
    SandboxNotRunningException,
)
from sandbox_sync.models.files import FilesystemEvent, FilesystemEventType

if TYPE_CHECKING:
    from typing_extensions import Self

    from sandbox_sync.transport.streams import RpcStream

MOST_EVENTS = 100_000
"""How many events wait to be asked for, at most."""

# Events that have happened may be on their way when somebody asks for what is new: so long is waited for them
# at most, and so long nothing must have come before what there is counts as all.
_ON_THE_WAY_SECONDS = 0.05
_QUIET_SECONDS = 0.02
# Servers have no code of their own for events that they lost, but all of them say so.
_WORDS_FOR_LOSS = ("events were lost", "overflow")

_TYPES = {
    filesystem_pb2.EVENT_TYPE_CHMOD: FilesystemEventType.CHMOD,
    filesystem_pb2.EVENT_TYPE_CREATE: FilesystemEventType.CREATE,
    filesystem_pb2.EVENT_TYPE_REMOVE: FilesystemEventType.REMOVE,
    filesystem_pb2.EVENT_TYPE_RENAME: FilesystemEventType.RENAME,
    filesystem_pb2.EVENT_TYPE_WRITE: FilesystemEventType.WRITE,
}


class _Events(Progress):
    """The events that nobody has asked for yet, and how the watch ended."""

    def __init__(self, path: str, sandbox_id: str | None) -> None:
        super().__init__()
        self.stopped = False
        self.path = path
        self.sandbox_id = sandbox_id
        self._waiting: deque[FilesystemEvent] = deque()
        self._newest_at = 0.0
        self._lost = 0

    @property
    def settled(self) -> bool:
        """Whether nothing more will come."""
        return self.stopped or super().settled

    def stop(self) -> None:
        """Settle the watch because it was asked for; harmless when it is settled."""
        with self._changed.lock:
            self.stopped = self.stopped or self.failure is None
            self._changed.notify_all()

    def add(self, event: FilesystemEvent) -> None:
        """Keep an event, at the expense of the oldest where there are too many."""
        with self._changed.lock:
            if len(self._waiting) == MOST_EVENTS:
                self._waiting.popleft()
                self._lost += 1
            self._waiting.append(event)
            self._newest_at = time.monotonic()
            self._changed.notify_all()

    def take(self, most: float, deadline: Deadline) -> list[FilesystemEvent]:
        """Events that nobody has taken; none if the time is up first, or the watch was stopped.

        Raises:
            EventsLostException: Events before the next ones were dropped; once for each time it happens.
            BaseException: Why the watch ended, once all events are taken.
        """
        while True:
            in_time = self._wait(self._has_news, deadline)
            with self._lock():
                lost, self._lost = self._lost, 0
                if lost:
                    raise EventsLostException(
                        f"{lost} events in {self.path!r} were dropped, because {MOST_EVENTS} later ones were "
                        "waiting to be asked for; those are still there. Ask more often, or use on_event",
                        sandbox_id=self.sandbox_id,
                    )
                taken = [self._waiting.popleft() for _ in range(int(min(most, len(self._waiting))))]
                if taken:
                    return taken
                if in_time and not self.settled:
                    continue  # others have taken them
                self.check()
                if deadline.block is not None and not self.settled:
                    raise exceeded(deadline.block, f"{self.path!r} is still being watched", self.sandbox_id)
                return []

    def catch_up(self) -> None:
        """Wait for the events that are on their way."""
        began = time.monotonic()
        deadline = Deadline.after(_ON_THE_WAY_SECONDS)
        self._wait(self._has_news, deadline)
        while not deadline.expired:
            with self._lock():
                known = self._changed.count
                quiet = max(began, self._newest_at) + _QUIET_SECONDS - time.monotonic()
                if self.settled or not self._waiting or quiet <= 0:
                    return
            self._changed.wait_beyond(known, deadline.sooner(quiet))

    def _has_news(self) -> bool:
        return bool(self._waiting) or self.settled

    @property
    def _remedy(self) -> str:
        return "files.watch_dir() makes one that works here"


class WatchHandle:
    """A directory that is watched: what `files.watch_dir()` returns. A thread of its own reads the events.

    The events can be had in three ways: as arguments of `on_event`, by iterating over the handle, and by
    asking for them with `get_new_events()` or `poll()`. Iterations and questions share the events: each is
    handed out once, to who asks first. Those that nobody asks for wait, up to 100,000 of them, unless there
    is an `on_event` to take them.

    Everything here may be used from any thread. Leaving a `with` block stops the watch, and so does dropping
    a handle that has no `on_event`.
    """

    def __init__(
        self,
        stream: RpcStream[filesystem_pb2.WatchDirResponse],
        path: str,
        on_event: Callable[[FilesystemEvent], Any] | None,
        on_exit: Callable[[Exception | None], Any] | None,
        logger: logging.Logger,
        sandbox_id: str,
    ) -> None:
        self._stream = stream
        self._path = path
        self._events = _Events(path, sandbox_id)
        # The reader must not hold on to the handle, or a handle that is dropped would never go.
        start_thread("sandbox-sync-watch", _read, stream, self._events, on_event, on_exit, logger)
        if on_event is None:
            weakref.finalize(self, stream.cancel).atexit = False

    def stop(self) -> None:
        """Stop watching, at once and for good; again is harmless.

        Events that were not asked for can still be had. A callback that runs meanwhile comes to its end, and
        none is called after it but `on_exit`.

        Specified in: WatchHandle, stop
        """
        if self._events.is_inherited:  # by a fork: the watch goes on in the process that it belongs to
            return
        self._events.stop()
        self._stream.cancel()

    def get_new_events(self) -> list[FilesystemEvent]:
        """What happened since the last time, without waiting for more than what is on its way.

        Returns:
            The events in their order; none if nothing happened, or the watch was stopped.

        Raises:
            EventsLostException: More happened than could be kept.
            CommandTimeoutException: The watch's `timeout` was up, and no events are left.
            SandboxException: The connection broke, and no events are left.
        """
        self._events.catch_up()
        return self._events.take(math.inf, Deadline.after(0))

    def poll(self, timeout: float | None = None) -> list[FilesystemEvent]:
        """Wait until something happens.

        Args:
            timeout: Seconds to wait at most; 0 or None for no limit.

        Returns:
            All that happened since the last time; none if the time was up, or the watch was stopped.

        Raises:
            SandboxException: As for `get_new_events`.
        """
        return self._events.take(math.inf, by(seconds(timeout, "timeout")))

    def events(self, timeout: float | None = None) -> Iterator[FilesystemEvent]:
        """Iterate over what happens, until the watch is stopped or the time is up.

        Args:
            timeout: Seconds that the iteration lasts; 0 or None for no limit.

        Raises:
            SandboxException: As for `get_new_events`.
        """
        deadline = by(seconds(timeout, "timeout"))
        while event := self._events.take(1, deadline):
            yield from event
            if deadline.expired and deadline.block is None:
                return

    def __iter__(self) -> Iterator[FilesystemEvent]:
        """What happens, as it happens, until the watch is stopped; see `events`."""
        return self.events()

    def wait(self, timeout: float | None = None) -> None:
        """Wait until the watch is stopped, by another thread or a callback.

        Args:
            timeout: Seconds to wait at most; 0 or None for no limit. The watch is not touched when they are
                up.

        Raises:
            CommandTimeoutException: It still goes on after `timeout` seconds, or its own timeout was up.
            SandboxException: The connection broke.
            Exception: What `on_event` raised.
        """
        deadline = by(seconds(timeout, "timeout"))
        if not self._events.wait(deadline):
            state = f"{self._path!r} is still being watched"
            if deadline.block is not None:
                raise exceeded(deadline.block, state, self._events.sandbox_id)
            error = CommandTimeoutException(
                f"{state} after the {timeout:g} s of wait(timeout={timeout:g})",
                sandbox_id=self._events.sandbox_id,
            )
            error.limit = timeout
            raise error
        self._events.check()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.stop()

    def __repr__(self) -> str:
        state = "stopped" if self._events.stopped else "ended" if self._events.settled else "watching"
        return f"<WatchHandle of {self._path!r}, {state}>"


def _read(
    stream: RpcStream[filesystem_pb2.WatchDirResponse],
    events: _Events,
    on_event: Callable[[FilesystemEvent], Any] | None,
    on_exit: Callable[[Exception | None], Any] | None,
    logger: logging.Logger,
) -> None:
    """Follow a watch to its end, and tell how it ended."""
    events.written_here()
    failure = _follow(stream, events, on_event or events.add, logger)
    stream.cancel()
    if failure is None:
        events.stop()
    else:
        events.fail(failure)
    outcome = None if events.stopped else events.failure
    if on_exit is not None:
        try:
            on_exit(outcome)  # type: ignore[arg-type]
        except BaseException:
            logger.exception("on_exit of the watched directory %r raised", events.path)
    elif on_event is not None and outcome is not None:
        expected = isinstance(outcome, SandboxNotRunningException)  # as when a `with` block of it was left
        level = logging.INFO if expected else logging.WARNING
        logger.log(level, "the directory %r is no longer watched: %s", events.path, outcome)


def _follow(
    stream: RpcStream[filesystem_pb2.WatchDirResponse],
    events: _Events,
    hand_out: Callable[[FilesystemEvent], Any],
    logger: logging.Logger,
) -> BaseException | None:
    """Hand out the events of a watch to its end; returns why there are no more, unless it was stopped."""
    try:
        for message in stream:
            event = _event(message.filesystem) if message.HasField("filesystem") else None
            if events.stopped:
                return None
            if event is not None:
                try:
                    hand_out(event)
                except BaseException as error:
                    if events.stopped:
                        logger.warning("on_event raised after the watch was stopped", exc_info=error)
                    return error
    except BaseException as error:  # noqa: BLE001 - whoever waits has to know
        return _explained(error, events.path)
    if stream.cancelled:
        return None
    return stream.cut_short(f"the service ended the watch of {events.path!r}, and nobody had stopped it")


def _explained(error: BaseException, path: str) -> BaseException:
    if isinstance(error, CommandTimeoutException):
        error.args = (f"The watch of {path!r} has ended: {error.message}",)
    if isinstance(error, SandboxException) and any(words in error.message for words in _WORDS_FOR_LOSS):
        lost = EventsLostException(
            f"{error.message}. The watch of {path!r} has ended; start another one, and look at the directory "
            "itself for what was missed",
            status=error.status,
            code=error.code,
            request_id=error.request_id,
            sandbox_id=error.sandbox_id,
            method=error.method,
            path=error.path,
        )
        lost.__cause__ = error
        return lost
    return error


def _event(event: filesystem_pb2.FilesystemEvent) -> FilesystemEvent | None:
    """The same under the documented names; None for what a newer service may tell that has none."""
    kind = _TYPES.get(event.type)
    if kind is None:
        return None
    return FilesystemEvent(event.name, kind, entry_info(event.entry) if event.HasField("entry") else None)
