"""Moving the body of an answer to who asked."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator

import pytest

from sandbox_local.http.exchange import pump


class Gone(Exception):
    """There is nobody to send to."""


class Nobody:
    """A sink that takes so many lots of pieces, and no more."""

    def __init__(self, lots: int) -> None:
        self._lots = lots

    def send(self, pieces: list[bytes]) -> None:
        self._lots -= 1
        if self._lots < 0:
            raise Gone

    async def drain(self) -> None:
        pass


@pytest.mark.parametrize("lots", [0, 1, 2])
def test_a_body_whose_client_goes_while_it_waits_is_closed_and_has_cleaned_up(lots: int) -> None:
    ended = []

    async def body() -> AsyncGenerator[bytes, None]:
        try:
            while True:
                await asyncio.sleep(0.001)
                yield b"piece"
        finally:
            await asyncio.sleep(0.001)  # cleaning up may take waiting, too
            ended.append(True)

    async def work() -> None:
        pieces = body()
        with pytest.raises(Gone):
            await pump(pieces, Nobody(lots))
        assert ended == [True]
        await pieces.aclose()

    asyncio.run(work())


def test_errors_of_a_body_are_its_own() -> None:
    async def body() -> AsyncGenerator[bytes, None]:
        await asyncio.sleep(0)
        yield b"piece"
        await asyncio.sleep(0)
        raise KeyError("of the body")

    with pytest.raises(KeyError):
        asyncio.run(pump(body(), Nobody(9)))


def test_cancelling_reaches_a_body_that_waits() -> None:
    seen = []

    async def body() -> AsyncGenerator[bytes, None]:
        try:
            await asyncio.sleep(60)
            yield b""
        except asyncio.CancelledError:
            seen.append("cancelled")
            raise

    async def work() -> None:
        task = asyncio.create_task(pump(body(), Nobody(9)))
        await asyncio.sleep(0.01)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    asyncio.run(work())
    assert seen == ["cancelled"]
