"""One test for both halves of the official `e2b` package: the blocking one, and that for asyncio."""

from __future__ import annotations

import asyncio
import functools
import inspect
import sys
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

e2b = pytest.importorskip("e2b")

SECONDS = 60.0
HALVES = ("Sandbox", "AsyncSandbox")

# The last release for Python 3.10 is older than that for the others.
newer = pytest.mark.skipif(
    sys.version_info < (3, 11), reason="the last official release for this Python has no such option"
)

Test = Callable[[Any], Awaitable[None]]


async def got(value: Any) -> Any:
    """What a call gave: at once, or when it is awaited."""
    return await value if inspect.isawaitable(value) else value


async def collected(stream: Any) -> bytes:
    """What a stream of bytes holds."""
    if hasattr(stream, "__aiter__"):
        return b"".join([piece async for piece in stream])
    return b"".join(stream)


def pieces(sandbox: Any, wanted: list[Any]) -> Any:
    """An iterable of the kind that the half of a sandbox takes."""

    async def one_by_one() -> Any:
        for piece in wanted:
            yield piece

    return one_by_one() if isinstance(sandbox, e2b.AsyncSandbox) else wanted


def both(**options: Any) -> Callable[[Test], Callable[[str], None]]:
    """Run a test twice, each time with a sandbox of its own, which is made with `options`."""

    def decorate(test: Test) -> Callable[[str], None]:
        async def run(kind: Any) -> None:
            sandbox = await got(kind.create(**{"timeout": 120, **options}))
            try:
                await asyncio.wait_for(test(sandbox), SECONDS)
            finally:
                await got(sandbox.kill())

        @pytest.mark.parametrize("half", HALVES)
        def runner(half: str) -> None:
            asyncio.run(run(getattr(e2b, half)))

        functools.update_wrapper(runner, test, assigned=("__module__", "__name__", "__qualname__", "__doc__"))
        del runner.__wrapped__  # type: ignore[attr-defined]  # pytest would look for its parameters there
        return runner

    return decorate


class Watched:
    """The events of a directory, whichever half tells of them."""

    def __init__(self) -> None:
        self.events: list[Any] = []
        self._handle: Any = None

    @classmethod
    async def start(cls, sandbox: Any, path: str, **options: Any) -> Watched:
        """Watch a directory."""
        watched = cls()
        if isinstance(sandbox, e2b.AsyncSandbox):
            options["on_event"] = watched.events.append
        watched._handle = await got(sandbox.files.watch_dir(path, **options))
        return watched

    async def until(self, name: str, kind: Any) -> Any:
        """Wait for an event."""
        deadline = asyncio.get_running_loop().time() + 10
        while True:
            if hasattr(self._handle, "get_new_events"):
                self.events += self._handle.get_new_events()
            for event in self.events:
                if (event.name, event.type) == (name, kind):
                    return event
            assert asyncio.get_running_loop().time() < deadline, (name, kind, self.events)
            await asyncio.sleep(0.02)

    async def stop(self) -> None:
        """Watch no more."""
        await got(self._handle.stop())
