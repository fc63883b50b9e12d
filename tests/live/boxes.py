"""What the tests of real boxes share."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from typing import Any, NamedTuple, TypeVar

from sandbox_local.isolation.base import BoxSpec, Command, Exit
from sandbox_local.isolation.namespace_box import NamespaceBox, NamespaceProcess
from sandbox_local.isolation.namespaces import NamespaceBackend

DEADLINE = 60.0

_Result = TypeVar("_Result")


class Output(NamedTuple):
    """What became of a command."""

    exit: Exit
    stdout: str
    stderr: str


def in_loop(work: Coroutine[Any, Any, _Result]) -> _Result:
    """Run a test's coroutine under a hard timeout."""
    return asyncio.run(asyncio.wait_for(work, DEADLINE))


@asynccontextmanager
async def a_backend(**options: Any) -> AsyncIterator[NamespaceBackend]:
    """A started backend."""
    backend = NamespaceBackend(**options)
    await backend.start()
    try:
        yield backend
    finally:
        await backend.close()


@asynccontextmanager
async def a_box(**options: Any) -> AsyncIterator[NamespaceBox]:
    """A box of a backend of its own."""
    async with a_backend(**options) as backend:
        box = await backend.create(BoxSpec("box"))
        yield box


async def read_some(fd: int) -> bytes:
    """Read what a non-blocking descriptor has, as soon as it has something; nothing at its end."""
    loop = asyncio.get_running_loop()
    while True:
        readable = asyncio.Event()
        loop.add_reader(fd, readable.set)
        try:
            await readable.wait()
        finally:
            loop.remove_reader(fd)
        try:
            return os.read(fd, 1 << 16)
        except BlockingIOError:
            continue
        except OSError:  # a terminal whose last user has gone
            return b""


async def read_all(fd: int) -> bytes:
    """Read a non-blocking descriptor to its end, and close it."""
    chunks = []
    try:
        while chunk := await read_some(fd):
            chunks.append(chunk)
    finally:
        os.close(fd)
    return b"".join(chunks)


async def finish(process: NamespaceProcess) -> Output:
    """Collect the output of a process with pipes, to its end."""
    assert process.stdout is not None
    assert process.stderr is not None
    out, err = await asyncio.gather(read_all(process.stdout), read_all(process.stderr))
    return Output(await process.exit, out.decode("utf-8", "replace"), err.decode("utf-8", "replace"))


async def run(box: NamespaceBox, *argv: str, user: str = "user", **options: Any) -> Output:
    """Run a command to its end."""
    return await finish(await box.spawn(Command(argv, user, **options)))


async def shell(box: NamespaceBox, script: str, user: str = "user", **options: Any) -> Output:
    """Run a script of bash to its end."""
    return await run(box, "/bin/bash", "-c", script, user=user, **options)


async def until(condition: Callable[[], bool], seconds: float = 10.0) -> None:
    """Wait for what nothing tells of.

    Raises:
        AssertionError: It has not come about in time.
    """
    deadline = asyncio.get_running_loop().time() + seconds
    while not condition():
        assert asyncio.get_running_loop().time() < deadline, "it did not come about"
        await asyncio.sleep(0.01)
