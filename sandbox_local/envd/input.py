"""What clients write to a process."""

from __future__ import annotations

import asyncio
import os


class InputClosed(Exception):
    """Nothing can be written any more; the message says why."""


class Input:
    """The writing end of a process's standard input or terminal. Pieces are written whole, one by one."""

    def __init__(self, fd: int) -> None:
        """Make it of a non-blocking descriptor, which it owns from here on."""
        self._fd = fd
        self._turn = asyncio.Lock()
        self._closed = False
        self._waiter: asyncio.Future[None] | None = None

    async def write(self, data: bytes) -> None:
        """Write all of `data`, waiting while the process does not read.

        Raises:
            InputClosed: It was closed, or the process reads no more.
        """
        async with self._turn:
            rest = memoryview(data)
            while rest:
                if self._closed:
                    raise InputClosed("it is closed")
                try:
                    rest = rest[os.write(self._fd, rest) :]
                except BlockingIOError:
                    await self._writable()
                except OSError as error:
                    raise InputClosed(f"the process does not read it any more ({error.strerror})") from None

    def close(self) -> None:
        """Close it, under a waiting writer too; again is harmless."""
        if self._closed:
            return
        self._closed = True
        if self._waiter is not None:
            asyncio.get_running_loop().remove_writer(self._fd)
            self._wake()
        os.close(self._fd)

    async def _writable(self) -> None:
        loop = asyncio.get_running_loop()
        self._waiter = loop.create_future()
        loop.add_writer(self._fd, self._wake)
        try:
            await self._waiter
        finally:
            self._waiter = None
            if not self._closed:
                loop.remove_writer(self._fd)

    def _wake(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)
