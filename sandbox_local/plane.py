"""The sandbox plane: requests for one port of one sandbox, to its envd or to what listens inside."""

from __future__ import annotations

import hmac
import re
from collections.abc import Callable
from dataclasses import dataclass

from sandbox_local.control.registry import Registry, Sandbox, Service, State
from sandbox_local.http import HttpError, Request, Response
from sandbox_local.isolation.base import BoxGone
from sandbox_local.proxy import forward
from sandbox_local.tunnel import PortClosed, tunnel

ENVD_PORT = 49983

# What an orchestrator asks of envd, never a client.
_PRIVATE = frozenset({"/init", "/freeze", "/unfreeze", "/collapse", "/fsfreeze", "/fsthaw", "/upgrade"})

_TRAFFIC_TOKEN = "e2b-traffic-access-token"


@dataclass(frozen=True)
class Address:
    """One port of one sandbox."""

    sandbox_id: str
    port: int


class BadAddress(Exception):
    """The request is for a sandbox but does not say rightly for which; the message is the answer."""


def address(request: Request) -> Address | None:
    """Which sandbox a request is for; None when it is for the control plane.

    Either the first label of the host (with CONNECT, of the target) is `PORT-ID`, or the headers
    E2b-Sandbox-Id and E2b-Sandbox-Port say it. In links to files the query may say it instead: they come
    without headers, and names under .localhost, though they are this machine's, are not known to every
    resolver.

    Raises:
        BadAddress: It says it wrongly.
    """
    host = request.target if request.method == "CONNECT" else request.host
    label = host.partition(".")[0].partition(":")[0]
    if re.match(r"\d+-", label):
        port, sandbox_id = label.split("-")[:2]
    else:
        named, numbered = request.headers.get("e2b-sandbox-id"), request.headers.get("e2b-sandbox-port")
        if named is None and numbered is None and request.path == "/files":
            named, numbered = request.parameter("e2b-sandbox-id"), request.parameter("e2b-sandbox-port")
        if named is None and numbered is None:
            return None
        if named is None or numbered is None:
            lacking = "E2b-Sandbox-Id" if named is None else "E2b-Sandbox-Port"
            raise BadAddress(f"missing header {lacking}")
        port, sandbox_id = numbered, named
    if not re.fullmatch(r"[a-z0-9]+", sandbox_id):
        raise BadAddress("invalid sandbox id: it consists of lower-case letters and digits")
    if not re.fullmatch(r"[0-9]{1,5}", port) or not 0 < int(port) < 65536:
        raise BadAddress("invalid port: it is a number between 1 and 65535")
    return Address(sandbox_id, int(port))


class SandboxPlane:
    """Answers requests to sandboxes.

    Args:
        registry: Knows the sandboxes.
        make_envd: Makes the envd of a sandbox, when something first asks for it.
    """

    def __init__(self, registry: Registry, make_envd: Callable[[Sandbox], Service]) -> None:
        self._registry = registry
        self._make_envd = make_envd

    async def handle(self, request: Request, to: Address) -> Response:
        """Answer a request to a sandbox.

        Raises:
            HttpError: 502, there is no such sandbox or nothing listens on the port; 403, the traffic token is
                missing or wrong; 404 or 405, the path or a tunnel to envd is not for clients.
        """
        try:
            sandbox = self._find(to.sandbox_id)
            if to.port != ENVD_PORT:
                _check_traffic(request, sandbox)  # first: who may not come in may not wake it up either
            if sandbox.state is State.PAUSED:
                await self._registry.connect(to.sandbox_id, sandbox.plan.timeout)
            if to.port == ENVD_PORT:
                return await self._envd(request, sandbox)
            if request.method == "CONNECT":
                return await tunnel(sandbox.box, to.port)
            return await forward(request, sandbox.box, to.port)
        except BoxGone:
            raise _not_found(to.sandbox_id) from None
        except PortClosed as error:
            raise HttpError(
                502, error.message, fields={"sandboxId": to.sandbox_id, "port": to.port}
            ) from None

    def _find(self, sandbox_id: str) -> Sandbox:
        """The sandbox, if it runs or wakes up when it is asked for."""
        sandbox = self._registry.find(sandbox_id)
        if sandbox is None or (sandbox.state is State.PAUSED and not sandbox.plan.auto_resume):
            raise _not_found(sandbox_id)
        return sandbox

    async def _envd(self, request: Request, sandbox: Sandbox) -> Response:
        if request.method == "CONNECT":
            raise HttpError(405, "this port speaks HTTP with the server itself; there is no tunnel to it")
        if request.path in _PRIVATE:
            raise HttpError(404, "this path is not open to clients", fields={"path": request.path})
        if sandbox.envd is None:
            sandbox.envd = self._make_envd(sandbox)
        return await sandbox.envd.handle(request)


def _check_traffic(request: Request, sandbox: Sandbox) -> None:
    wanted = sandbox.traffic_access_token
    if wanted is None:
        return
    given = request.headers.get(_TRAFFIC_TOKEN)
    if given is None or not hmac.compare_digest(given.encode(), wanted.encode()):
        problem = "is missing" if given is None else "is wrong"
        raise HttpError(
            403, f"the header {_TRAFFIC_TOKEN} {problem}", fields={"sandboxId": sandbox.sandbox_id}
        )


def _not_found(sandbox_id: str) -> HttpError:
    return HttpError(502, "The sandbox was not found", fields={"sandboxId": sandbox_id})
