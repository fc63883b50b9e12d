"""A stand-in for the isolation, for tests of the registry and REST: boxes that remember what was asked."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any, TypeVar

from sandbox_local.control.registry import Registry
from sandbox_local.http import Body, Headers, Request
from sandbox_local.isolation.base import BoxGone, BoxSpec, Limits, Usage

T = TypeVar("T")


class StandinBox:
    """A box of which only the state is there."""

    def __init__(self, spec: BoxSpec) -> None:
        self.box_id = spec.box_id
        self.ended: asyncio.Future[str] = asyncio.get_running_loop().create_future()
        self.frozen = False
        self.closed = 0
        self.may_close = asyncio.Event()
        self.may_close.set()

    def usage(self) -> Usage:
        return Usage(memory_used=2000, memory_cache=200)

    async def freeze(self) -> None:
        self._alive()
        await asyncio.sleep(0)
        self._alive()
        self.frozen = True

    async def thaw(self) -> None:
        self._alive()
        self.frozen = False

    async def close(self) -> None:
        self.closed += 1
        await self.may_close.wait()
        if not self.ended.done():
            self.ended.set_result("closed")

    async def files(self, operation: str, **arguments: Any) -> tuple[dict[str, Any], list[int]]:
        assert operation == "usage"
        return {"cpu_seconds": 0.5, "memory_used": 1000, "disk_total": 4000, "disk_used": 300}, []

    def _alive(self) -> None:
        if self.ended.done():
            raise BoxGone


class StandinBackend:
    """Makes them; `may_create` holds creations back, `failure` lets them fail."""

    def __init__(self) -> None:
        self.boxes: list[StandinBox] = []
        self.may_create = asyncio.Event()
        self.may_create.set()
        self.failure: Exception | None = None

    async def create(self, spec: BoxSpec) -> StandinBox:
        await self.may_create.wait()
        if self.failure is not None:
            raise self.failure
        self.boxes.append(StandinBox(spec))
        return self.boxes[-1]

    async def start(self) -> None: ...

    async def close(self) -> None: ...


def with_registry(test: Callable[[Registry, StandinBackend], Awaitable[None]], most: int = 10) -> None:
    """Run a test with a registry of its own; nothing may be left of it in the end."""

    async def body() -> None:
        backend = StandinBackend()
        registry = Registry(backend, most=most, limits=Limits())  # type: ignore[arg-type]  # no whole boxes
        try:
            await asyncio.wait_for(test(registry, backend), 30)
        finally:
            for box in backend.boxes:
                box.may_close.set()
            backend.may_create.set()
            await asyncio.wait_for(registry.close(), 10)
        assert all(box.closed == 1 for box in backend.boxes), "every box is closed once"
        assert len(registry) == 0

    asyncio.run(body())


async def until(condition: Callable[[], bool]) -> None:
    """Let the event loop run until something is so."""

    async def wait() -> None:
        while not condition():
            await asyncio.sleep(0.005)

    await asyncio.wait_for(wait(), 10)


def request(method: str, target: str, body: bytes | str = b"", **headers: str) -> Request:
    """A request as the engine hands it to a handler; underscores in header names stand for dashes."""
    content = Body(None)
    if body:
        content.feed(body.encode() if isinstance(body, str) else body)
    content.end()
    return Request(method, target, Headers({k.replace("_", "-"): v for k, v in headers.items()}), content)
