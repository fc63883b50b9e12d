"""Work in threads is never left behind."""

from __future__ import annotations

import asyncio
import os
import threading
from pathlib import Path

import pytest

from sandbox_local.threads import Writer, run_to_end


def test_results_and_errors_come_back() -> None:
    assert asyncio.run(run_to_end(divmod, 7, 2)) == (3, 1)
    with pytest.raises(ZeroDivisionError):
        asyncio.run(run_to_end(divmod, 7, 0))


def test_who_is_cancelled_waits_for_the_thread() -> None:
    begun, go_on, ended = threading.Event(), threading.Event(), threading.Event()

    def work() -> None:
        begun.set()
        go_on.wait(30)
        ended.set()

    async def main() -> None:
        task = asyncio.create_task(run_to_end(work))
        await asyncio.to_thread(begun.wait)
        for _ in range(3):
            task.cancel()
            await asyncio.wait([task], timeout=0.01)
            assert not task.done()
        go_on.set()
        await asyncio.wait([task])
        assert ended.is_set()
        assert task.cancelled()

    asyncio.run(main())


def test_pieces_are_written_in_their_order_while_others_are_got(tmp_path: Path) -> None:
    async def main() -> None:
        fd = os.open(tmp_path / "f", os.O_WRONLY | os.O_CREAT)
        async with Writer(fd) as writer:
            for number in range(200):
                await writer.write(b"%d " % number, memoryview(b"and"), b"\n")
        os.close(fd)

    asyncio.run(main())
    assert (tmp_path / "f").read_text() == "".join(f"{number} and\n" for number in range(200))


def test_what_cannot_be_written_is_told_at_the_next_piece_or_the_end(tmp_path: Path) -> None:
    fd = os.open(tmp_path / "f", os.O_RDONLY | os.O_CREAT)
    taken: list[int] = []

    async def write(pieces: int) -> None:
        async with Writer(fd) as writer:
            for number in range(pieces):
                await writer.write(b"x")
                taken.append(number)

    for pieces in (1, 5):
        with pytest.raises(OSError, match="Bad file descriptor"):
            asyncio.run(write(pieces))
    assert taken == [0, 0]
    os.close(fd)


@pytest.mark.parametrize("cancelled", [True, False])
def test_nothing_is_being_written_when_it_is_over(cancelled: bool) -> None:
    """A pipe that nobody reads holds the thread; who waits meanwhile is cancelled, again and again."""
    reader, writer = os.pipe()
    seen = []

    async def work() -> None:
        async with Writer(writer) as output:
            await output.write(bytes(1 << 20))
            if not cancelled:
                raise KeyError
            await output.write(b"never")

    async def main() -> None:
        task = asyncio.create_task(work())
        seen.append(await asyncio.to_thread(os.read, reader, 1))  # it is being written
        for _ in range(3):
            if cancelled:
                task.cancel()
            await asyncio.wait([task], timeout=0.01)
            assert not task.done()
        left = (1 << 20) - 1
        while left:
            left -= len(await asyncio.to_thread(os.read, reader, left))
        await asyncio.wait([task])
        assert task.cancelled() if cancelled else isinstance(task.exception(), KeyError)

    asyncio.run(main())
    os.set_blocking(reader, False)
    with pytest.raises(BlockingIOError):
        os.read(reader, 1)
    os.close(reader)
    os.close(writer)
