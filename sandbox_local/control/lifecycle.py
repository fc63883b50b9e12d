"""REST operations that change a sandbox: create, connect, pause, kill, how long it lives, what it reaches."""

from __future__ import annotations

import hashlib
import json

from sandbox_sync_rest.models.connect_sandbox import ConnectSandbox
from sandbox_sync_rest.models.connect_sandbox_v2 import ConnectSandboxV2
from sandbox_sync_rest.models.new_sandbox import NewSandbox
from sandbox_sync_rest.models.new_sandbox_v2 import NewSandboxV2
from sandbox_sync_rest.models.resumed_sandbox import ResumedSandbox
from sandbox_sync_rest.models.sandbox_network_update_config import SandboxNetworkUpdateConfig
from sandbox_sync_rest.models.sandbox_pause_request import SandboxPauseRequest
from sandbox_sync_rest.models.sandbox_refresh_request import SandboxRefreshRequest
from sandbox_sync_rest.models.sandbox_timeout_request import SandboxTimeoutRequest

from sandbox_local.control import wire
from sandbox_local.control.creations import Creations
from sandbox_local.control.network import policy_of_update
from sandbox_local.control.registry import Registry
from sandbox_local.control.routing import Route
from sandbox_local.control.templates import Catalog
from sandbox_local.http import Request, Response

# What a refresh without a duration asks for, and the least that one gives.
_REFRESH_SECONDS = 15


class Lifecycle:
    """Answers them.

    Args:
        registry: The sandboxes.
        domain: Domain under which their ports are reached, or None if it is for the client to know.
        catalog: What they can be made from.
    """

    def __init__(self, registry: Registry, domain: str | None, catalog: Catalog) -> None:
        self._registry = registry
        self._creations = Creations(registry)
        self._domain = domain
        self._catalog = catalog

    def routes(self) -> list[Route]:
        """What is answered here."""
        return [
            Route("POST", "/sandboxes", self._create_v1),
            Route("POST", "/v2/sandboxes", self._create_v2),
            Route("POST", "/sandboxes/{sandboxID}/connect", self._connect_v1),
            Route("POST", "/v2/sandboxes/{sandboxID}/connect", self._connect_v2),
            Route("POST", "/sandboxes/{sandboxID}/resume", self._resume),
            Route("POST", "/sandboxes/{sandboxID}/pause", self._pause),
            Route("POST", "/sandboxes/{sandboxID}/timeout", self._set_timeout),
            Route("POST", "/sandboxes/{sandboxID}/refreshes", self._refresh),
            Route("PUT", "/sandboxes/{sandboxID}/network", self._set_network),
            Route("DELETE", "/sandboxes/{sandboxID}", self._kill),
        ]

    async def _create_v1(self, request: Request, parameters: dict[str, str]) -> Response:
        return await self._create(request, await wire.read(request, NewSandbox))

    async def _create_v2(self, request: Request, parameters: dict[str, str]) -> Response:
        return await self._create(request, await wire.read(request, NewSandboxV2))

    async def _create(self, request: Request, body: NewSandbox | NewSandboxV2) -> Response:
        fingerprint = json.dumps([request.path, body.to_wire()], sort_keys=True).encode()
        sandbox = await self._creations.create(
            wire.plan(body, self._catalog, internet=self._registry.internet),
            hashlib.sha256(fingerprint).digest(),
            request.headers.get("idempotency-key"),
        )
        return wire.answer(201, wire.access(sandbox, self._domain))

    async def _connect_v1(self, request: Request, parameters: dict[str, str]) -> Response:
        return await self._connect(await wire.read(request, ConnectSandbox), parameters)

    async def _connect_v2(self, request: Request, parameters: dict[str, str]) -> Response:
        return await self._connect(await wire.read(request, ConnectSandboxV2), parameters)

    async def _connect(self, body: ConnectSandbox | ConnectSandboxV2, parameters: dict[str, str]) -> Response:
        wire.require_memory(body.memory)
        sandbox_id = wire.sandbox_id(parameters["sandboxID"])
        sandbox, resumed = await self._registry.connect(sandbox_id, body.timeout)
        return wire.answer(201 if resumed else 200, wire.access(sandbox, self._domain))

    async def _resume(self, request: Request, parameters: dict[str, str]) -> Response:
        body = await wire.read(request, ResumedSandbox)
        wire.require_memory(body.memory)
        sandbox = await self._registry.resume(wire.sandbox_id(parameters["sandboxID"]), body.timeout)
        return wire.answer(201, wire.access(sandbox, self._domain))

    async def _pause(self, request: Request, parameters: dict[str, str]) -> Response:
        body = await wire.read(request, SandboxPauseRequest)
        wire.require_memory(body.memory)
        await self._registry.pause(wire.sandbox_id(parameters["sandboxID"]))
        return Response(204)

    async def _set_timeout(self, request: Request, parameters: dict[str, str]) -> Response:
        body = await wire.read(request, SandboxTimeoutRequest)
        self._registry.set_timeout(wire.sandbox_id(parameters["sandboxID"]), body.timeout)
        return Response(204)

    async def _refresh(self, request: Request, parameters: dict[str, str]) -> Response:
        body = await wire.read(request, SandboxRefreshRequest)
        seconds = max(body.duration or 0, _REFRESH_SECONDS)
        self._registry.extend(wire.sandbox_id(parameters["sandboxID"]), seconds)
        return Response(204)

    async def _set_network(self, request: Request, parameters: dict[str, str]) -> Response:
        body = await wire.read(request, SandboxNetworkUpdateConfig)
        policy = policy_of_update(body, internet=self._registry.internet)
        self._registry.set_policy(wire.sandbox_id(parameters["sandboxID"]), policy)
        return Response(204)

    async def _kill(self, request: Request, parameters: dict[str, str]) -> Response:
        await self._registry.kill(wire.sandbox_id(parameters["sandboxID"]))
        return Response(204)
