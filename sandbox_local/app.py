"""The one handler of the server: it tells requests to sandboxes from requests to the control plane."""

from __future__ import annotations

import asyncio

from sandbox_local.control.api import ControlPlane
from sandbox_local.envd.faults import unable
from sandbox_local.http import HttpError, Request, Response
from sandbox_local.pages import page, wants_page
from sandbox_local.plane import Address, BadAddress, SandboxPlane, address
from sandbox_local.rpc import refuse


class App:
    """Answers every request.

    Args:
        control: The control plane.
        plane: The sandboxes.

    Attributes:
        last_request: When a request last came or was answered, by the clock of the event loop.
    """

    def __init__(self, control: ControlPlane, plane: SandboxPlane) -> None:
        self._control = control
        self._plane = plane
        self.last_request = asyncio.get_running_loop().time()

    async def handle(self, request: Request) -> Response:
        """Answer a request."""
        loop = asyncio.get_running_loop()
        self.last_request = loop.time()
        try:
            to = address(request)
            if to is not None:
                return await self._of_sandbox(request, to)
            if request.method == "CONNECT":
                raise HttpError(400, "CONNECT is for ports of sandboxes: CONNECT PORT-SANDBOXID.localhost:80")
            return await self._control.handle(request)
        except BadAddress as error:
            return Response(400, {"content-type": "text/plain; charset=utf-8"}, f"{error}\n".encode())
        except HttpError as error:
            return refuse(request, error)
        except OSError as error:
            refusal = unable(error)
            if refusal is None:
                raise
            return refuse(request, refusal)
        finally:
            self.last_request = loop.time()

    async def _of_sandbox(self, request: Request, to: Address) -> Response:
        try:
            return await self._plane.handle(request, to)
        except HttpError as error:
            if wants_page(request):
                return page(error)
            raise
