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


def write_all(fd: int, *pieces: bytes | memoryview) -> None:
    """Write pieces to a blocking descriptor, for `run_to_end`."""
    for piece in pieces:
        rest = memoryview(piece)
        while rest:
            rest = rest[os.write(fd, rest) :]
