"""A service that makes and ends sandboxes as a test says, and knows how many there were at once."""

from __future__ import annotations

import asyncio
import json
import re
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from sandbox_local.http import Request, Response
from tests.unit.engine_testbed import serving


class PoolService:
    """What a test changes, and what it looks at.

    Attributes:
        alive: The sandboxes that there are.
        most: How many there were at once at most.
        dead: Those that do not answer, though the control plane has not ended them.
        refusals: Statuses and words to answer the next creations with.
        asked: How often each kind of request came.
    """

    def __init__(self) -> None:
        self.alive: set[str] = set()
        self.most = 0
        self.made = 0
        self.dead: set[str] = set()
        self.refusals: list[tuple[int, str]] = []
        self.kill_refusals = 0
        self.asked: Counter[str] = Counter()
        self.bodies: list[Any] = []
        self.creation_takes = 0.0
        self.may_create = True

    async def handle(self, request: Request) -> Response:
        if sandbox_id := request.headers.get("e2b-sandbox-id"):
            self.asked["health"] += 1
            if sandbox_id in self.alive - self.dead:
                return Response(204)
            return Response.json(502, {"code": 502, "message": "The sandbox was not found", "sandboxId": "x"})
        content = await request.body.read(1 << 20)
        body = json.loads(content) if content else None
        if request.path == "/v2/sandboxes":
            return await self._create(body)
        match = re.fullmatch(r"/sandboxes/(\w+)(/timeout)?", request.path)
        assert match is not None, request.path
        sandbox_id = match[1]
        self.asked["renew" if match[2] else "kill"] += 1
        if sandbox_id not in self.alive:
            return Response.json(404, {"code": 404, "message": "not found"})
        if not match[2]:
            if self.kill_refusals:
                self.kill_refusals -= 1
                return Response.json(400, {"code": 400, "message": "not now"})
            self.alive.remove(sandbox_id)
        return Response(204)

    async def _create(self, body: Any) -> Response:
        self.asked["create"] += 1
        self.bodies.append(body)
        while not self.may_create:
            await asyncio.sleep(0.005)
        if self.creation_takes:
            await asyncio.sleep(self.creation_takes)
        if self.refusals:
            status, words = self.refusals.pop(0)
            return Response.json(status, {"code": status, "message": words})
        self.made += 1
        sandbox_id = f"i{self.made}"
        self.alive.add(sandbox_id)
        self.most = max(self.most, len(self.alive))
        created = {"sandboxID": sandbox_id, "templateID": "base", "clientID": "6532622b"}
        return Response.json(
            201, {**created, "envdVersion": "0.6.13", "envdAccessToken": f"token-of-{sandbox_id}"}
        )


@contextmanager
def running() -> Iterator[tuple[PoolService, dict[str, Any]]]:
    """The service, and the options that lead to it."""
    service = PoolService()
    with serving(service.handle) as server:
        url = f"http://127.0.0.1:{server.port}"
        yield service, {"api_key": "key", "api_url": url, "sandbox_url": url, "retries": 0}
