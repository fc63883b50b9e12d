"""Output of one process for any number of readers at once, in bounded memory.

What is published while nobody reads is gone, but for the beginning, which may be kept for a while. Readers
who are all slow hold the process back, as a full pipe would. While only some are, the others read on, and up
to `SPARE` waits for those. Then the others have to wait, too; but one who takes nothing for `GRACE` meanwhile
is cut off with an error, so that a client that has stopped reading can't stop the others.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from typing import Generic, TypeVar

QUEUE_LIMIT = 512 << 10
"""Bytes that may wait for one reader before it counts as slow."""

SPARE = 24 << 20
"""Bytes that may wait for a slow reader while others read on. Readers share the memory that it takes."""

GRACE = 0.05
"""Seconds that a slow reader may keep others waiting without taking anything."""

E = TypeVar("E")


class Lagging(Exception):
    """The reader was cut off because it did not read while others waited; what waited for it is lost."""


class Fanout(Generic[E]):
    """Hands each published event to every reader.

    Attributes:
        readers: Those who read now.
    """

    def __init__(self, pause: Callable[[], None], resume: Callable[[], None], keep: int = 0) -> None:
        """Make a fan-out.

        Args:
            pause: Called when publishing should stop, perhaps again when it has.
            resume: Called when publishing may go on, perhaps again when it does.
            keep: Bytes of the first events to keep, until `forget`, for readers who want them all.
        """
        self.readers: list[Reader[E]] = []
        self._pause = pause
        self._resume = resume
        self._last: E | BaseException | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._kept: list[tuple[E, int]] | None = [] if keep else None  # all events, or None if some are gone
        self._room = keep

    @property
    def begins(self) -> bool:
        """Whether a new reader can have every event that was ever published."""
        return self._kept is not None

    def forget(self) -> None:
        """Keep no events any more for readers to come."""
        self._kept = None

    def reader(self, *, from_start: bool = False) -> Reader[E]:
        """A new reader, who gets what is published from now on.

        Args:
            from_start: Give it what has been published, too; only while `begins`.
        """
        reader = Reader(self)
        if from_start:
            for event, size in self._kept or ():
                reader.put(event, size)
        if self._last is not None:
            reader.finish(self._last)
        self.readers.append(reader)
        self.review()
        return reader

    def publish(self, event: E, size: int) -> None:
        """Hand an event of `size` bytes to every reader."""
        if self._kept is not None:
            self._room -= size
            if self._room < 0:
                self._kept = None
            else:
                self._kept.append((event, size))
        for reader in self.readers:
            reader.put(event, size)
        if any(reader.is_slow for reader in self.readers):
            self.review()

    def finish(self, last: E | BaseException) -> None:
        """End every reader, now and to come: after what waits for it, with a last event or an exception."""
        self._last = last
        for reader in self.readers:
            reader.finish(last)

    def review(self) -> None:
        """Decide anew who has to wait for whom."""
        all_are_slow = bool(self.readers) and all(reader.is_slow for reader in self.readers)
        others_wait = not all_are_slow and any(reader.lags for reader in self.readers)
        if all_are_slow or others_wait:
            self._pause()
        else:
            self._resume()
        if not others_wait:
            if self._timer is not None:
                self._timer.cancel()
                self._timer = None
        elif self._timer is None:
            waited_for = [(reader, reader.taken) for reader in self.readers if reader.lags]
            self._timer = asyncio.get_running_loop().call_later(GRACE, self._cut_off, waited_for)

    def _cut_off(self, waited_for: list[tuple[Reader[E], int]]) -> None:
        self._timer = None
        for reader, taken in waited_for:
            if reader.lags and reader.taken == taken:  # several may lag in turn, and all of them read
                reader.cut_off(Lagging())
        self.review()


class Reader(Generic[E]):
    """One reader of a fan-out.

    Attributes:
        taken: How many events it has taken.
    """

    def __init__(self, fanout: Fanout[E]) -> None:
        self.taken = 0
        self._fanout = fanout
        self._events: deque[tuple[E, int]] = deque()
        self._size = 0
        self._last: E | BaseException | None = None
        self._waiter: asyncio.Future[None] | None = None

    @property
    def is_slow(self) -> bool:
        """Whether it is waited for, unless others are not slow."""
        return self._size >= QUEUE_LIMIT

    @property
    def lags(self) -> bool:
        """Whether the others have to wait for it, too."""
        return self._size >= SPARE

    def put(self, event: E, size: int) -> None:
        self._events.append((event, size))
        self._size += size
        self._wake()

    def finish(self, last: E | BaseException) -> None:
        """End this reader after what waits for it; only the first end counts."""
        if self._last is None:
            self._last = last
            self._wake()

    def cut_off(self, error: BaseException) -> None:
        """End this reader at once."""
        self._events.clear()
        self.finish(error)
        self.close()

    def close(self) -> None:
        """Get nothing more; again is harmless."""
        if self in self._fanout.readers:
            self._fanout.readers.remove(self)
            self._fanout.review()

    async def next(self, patience: float) -> E | None:
        """The next event, or None when there is none for `patience` seconds.

        After the last event it is not to be called again.

        Raises:
            Lagging: This reader was cut off.
            BaseException: What the fan-out was finished with.
        """
        if not self._events and self._last is None and not await self._wait(patience):
            return None
        if self._events:
            event, size = self._events.popleft()
            self.taken += 1
            before = self.is_slow, self.lags
            self._size -= size
            if before != (self.is_slow, self.lags):
                self._fanout.review()
            return event
        assert self._last is not None
        if isinstance(self._last, BaseException):
            raise self._last
        return self._last

    async def _wait(self, seconds: float) -> bool:
        """Wait for something to happen; False if nothing did."""
        loop = asyncio.get_running_loop()
        self._waiter = loop.create_future()
        timer = loop.call_later(seconds, self._wake)
        try:
            await self._waiter
        finally:
            timer.cancel()
            self._waiter = None
        return bool(self._events) or self._last is not None

    def _wake(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)
