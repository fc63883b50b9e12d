"""Who waits for whom among the readers of one process's output."""

from __future__ import annotations

import asyncio
import time

import pytest

from sandbox_local.envd.fanout import GRACE, QUEUE_LIMIT, SPARE, Fanout, Lagging, Reader


class Hub(Fanout[int]):
    """A fan-out that knows whether it has asked for a pause."""

    def __init__(self) -> None:
        self.paused = False
        super().__init__(lambda: self.ask(True), lambda: self.ask(False))

    def ask(self, pause: bool) -> None:
        self.paused = pause

    def fill(self, size: int = SPARE) -> None:
        """Publish as much as makes everybody wait for those who have not taken it."""
        self.publish(1, size)


async def take(*readers: Reader[int]) -> None:
    for reader in readers:
        while reader._events:
            await reader.next(1)


def test_a_reader_that_takes_nothing_is_cut_off_when_others_wait() -> None:
    """G10."""

    async def work() -> None:
        hub = Hub()
        stopped, reading = hub.reader(), hub.reader()
        hub.fill()
        await take(reading)
        began = time.monotonic()
        assert hub.paused
        while hub.paused:
            await asyncio.sleep(0.001)
        assert GRACE * 0.9 <= time.monotonic() - began < 0.1
        with pytest.raises(Lagging):
            await stopped.next(1)
        hub.publish(2, 1)
        assert await reading.next(1) == 2

    asyncio.run(work())


def test_readers_that_are_slow_in_turn_and_read_keep_their_places() -> None:
    async def work() -> None:
        hub = Hub()
        one, other, quick = hub.reader(), hub.reader(), hub.reader()

        async def fill() -> None:
            """Have those lag who take nothing, and never all of them."""
            for _ in range(2):
                hub.fill(SPARE // 2)
                await take(quick)

        await fill()
        await take(other)
        for _ in range(4):  # there is always one of the two that is slow, and each reads again and again
            for late, turn in ((one, other), (other, one)):
                await asyncio.sleep(GRACE * 0.4)
                assert late.lags
                await fill()
                assert turn.lags
                await take(late)
        await take(one, other)
        assert hub.readers == [one, other, quick]
        assert not hub.paused

    asyncio.run(work())


def test_a_reader_alone_is_waited_for() -> None:
    async def work() -> None:
        hub = Hub()
        only = hub.reader()
        hub.fill(QUEUE_LIMIT)
        await asyncio.sleep(GRACE * 2)
        assert hub.paused
        await take(only)
        assert not hub.paused
        assert hub.readers == [only]

    asyncio.run(work())


def test_others_read_on_while_little_waits_for_one() -> None:
    async def work() -> None:
        hub = Hub()
        slow, reading = hub.reader(), hub.reader()
        for _ in range(SPARE // QUEUE_LIMIT - 1):
            hub.fill(QUEUE_LIMIT)
            await take(reading)
            assert not hub.paused
        await asyncio.sleep(GRACE * 2)
        assert hub.readers == [slow, reading]
        hub.fill(QUEUE_LIMIT)
        await take(reading)
        assert hub.paused
        await slow.next(1)
        assert not hub.paused

    asyncio.run(work())


def test_readers_that_are_all_slow_are_waited_for() -> None:
    async def work() -> None:
        hub = Hub()
        readers = hub.reader(), hub.reader()
        hub.fill(QUEUE_LIMIT)
        await asyncio.sleep(GRACE * 2)
        assert hub.paused
        await take(*readers)
        assert not hub.paused
        assert hub.readers == [*readers]

    asyncio.run(work())
