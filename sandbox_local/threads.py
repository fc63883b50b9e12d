"""Work on descriptors off the event loop."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable
from functools import partial
from typing import Any, TypeVar

_T = TypeVar("_T")


async def run_to_end(function: Callable[..., _T], *arguments: Any) -> _T:
    """Call a function in a thread; who is cancelled meanwhile waits for its end all the same.

    Otherwise a descriptor could be closed, and its number given to another file, while the thread still
    writes to it.
    """
    running = asyncio.get_running_loop().run_in_executor(None, partial(function, *arguments))
    try:
        return await asyncio.shield(running)
    except asyncio.CancelledError:
        while not running.done():
            try:
                await asyncio.wait([running])
            except asyncio.CancelledError:
                continue
        running.exception()  # nobody else will ask for it
        raise


class Writer:
    """Writes to a blocking descriptor off the event loop, while the next pieces are being got.

    Use it in an `async with` block, at whose end nothing is being written any more, whatever ends it.
    """

    def __init__(self, fd: int) -> None:
        """Write at the place where a descriptor stands; it belongs to the caller."""
        self._fd = fd
        self._writing: asyncio.Task[None] | None = None

    async def __aenter__(self) -> Writer:
        return self

    async def __aexit__(self, kind: object, *_: object) -> None:
        if kind is None:
            await self._finish()
        elif self._writing is not None:
            while not self._writing.done():
                try:
                    await asyncio.wait([self._writing])
                except asyncio.CancelledError:
                    continue
            if not self._writing.cancelled():
                self._writing.exception()  # nobody else will ask for it

    async def write(self, *pieces: bytes | memoryview) -> None:
        """Have pieces written, once those before are.

        Raises:
            OSError: Those before could not be written.
        """
        await self._finish()
        self._writing = asyncio.create_task(run_to_end(write_all, self._fd, *pieces))

    async def _finish(self) -> None:
        if self._writing is not None:
            await self._writing


def write_all(fd: int, *pieces: bytes | memoryview) -> None:
    """Write pieces to a blocking descriptor, for `run_to_end`."""
    for piece in pieces:
        rest = memoryview(piece)
        while rest:
            rest = rest[os.write(fd, rest) :]
