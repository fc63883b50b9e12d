"""Everything that answers on port 49983 of one sandbox."""

from __future__ import annotations

import time
from collections.abc import Mapping

from sandbox_sync_rpc import services

from sandbox_local.envd.access import check_file_access, check_token
from sandbox_local.envd.boxfiles import RpcFiles, ask
from sandbox_local.envd.download import read_file
from sandbox_local.envd.filesystem import FilesystemService
from sandbox_local.envd.metrics import Metrics
from sandbox_local.envd.process import ProcessService
from sandbox_local.envd.upload import Uploads
from sandbox_local.envd.watch import WatchService
from sandbox_local.http import HttpError, Request, Response
from sandbox_local.isolation.base import Box, Limits, UnknownUser
from sandbox_local.rpc import Rpc, basic_user, refuse

_METHODS = {
    "/health": ("GET",),
    "/metrics": ("GET",),
    "/envs": ("GET",),
    "/files": ("GET", "POST"),
    "/files/compose": ("POST",),
}
_EXPOSED = (
    "Connect-Content-Encoding, Connect-Accept-Encoding, Content-Encoding, Grpc-Status, Grpc-Message, "
    "Grpc-Status-Details-Bin, Location, Cache-Control, X-Content-Type-Options"
)
_PREFLIGHT = {
    "access-control-allow-methods": "HEAD, GET, POST, PUT, PATCH, DELETE",
    "access-control-max-age": "7200",
}


class Envd:
    """The envd of a sandbox: its RPC services, its files over HTTP, and what else it tells of itself."""

    def __init__(
        self,
        box: Box,
        limits: Limits,
        sandbox_id: str,
        template_id: str,
        env_vars: Mapping[str, str],
        access_token: str | None,
        default_user: str = "user",
    ) -> None:
        """Make the envd of a box.

        Args:
            box: The living box.
            limits: What it may use.
            sandbox_id: Id of the sandbox, for its environment.
            template_id: Id of its template, for its environment.
            env_vars: Variables that every process gets; those that describe the sandbox win.
            access_token: What requests must carry, or None when the sandbox is open to all who reach it.
            default_user: User of requests that name none.
        """
        self._box = box
        self._access_token = access_token
        self._default_user = default_user
        self._envs = {
            **env_vars,
            "E2B_SANDBOX": "true",
            "E2B_SANDBOX_ID": sandbox_id,
            "E2B_TEMPLATE_ID": template_id,
        }
        files = RpcFiles(box, default_user)
        self._processes = ProcessService(box, files, self._envs, default_user)
        self._watches = WatchService(box, files)
        filesystem = {**FilesystemService(files).handlers(), **self._watches.handlers()}
        self._rpc = Rpc([(services.PROCESS, self._processes.handlers()), (services.FILESYSTEM, filesystem)])
        self._uploads = Uploads(box)
        self._metrics = Metrics(box, limits)

    async def handle(self, request: Request) -> Response:
        """Answer one request.

        Raises:
            BoxGone: The box has ended.
        """
        if request.method == "OPTIONS" and "access-control-request-method" in request.headers:
            wanted = request.headers.get("access-control-request-headers", "*")
            allowed = {**_PREFLIGHT, "access-control-allow-headers": wanted}
            return _open_to_browsers(request, Response(204, allowed))
        try:
            response = await self._answer(request)
        except HttpError as error:
            response = refuse(request, error)
            response.headers.set("x-content-type-options", "nosniff")
        return _open_to_browsers(request, response)

    async def close(self) -> None:
        """End every stream."""
        self._processes.close()
        self._watches.close()

    async def _answer(self, request: Request) -> Response:
        check_token(request, self._access_token)
        path = request.path
        if path not in _METHODS:
            return await self._rpc.handle(request, self)
        if request.method not in _METHODS[path]:
            allowed = ", ".join(_METHODS[path])
            raise HttpError(405, f"{path} is for {allowed}", headers={"allow": allowed})
        await self._check_user(request)
        if path == "/health":
            return Response(204, {"cache-control": "no-store"})
        if path == "/metrics":
            return Response.json(200, await self._metrics.read(), {"cache-control": "no-store"})
        if path == "/envs":
            return Response.json(200, self._envs, {"cache-control": "no-store"})
        user = request.parameter("username") or basic_user(request.headers) or self._default_user
        if path == "/files/compose":
            return await self._uploads.compose(request, user)
        operation = "read" if request.method == "GET" else "write"
        check_file_access(request, operation, self._access_token, time.time())
        if operation == "read":
            return await read_file(self._box, request, user)
        return await self._uploads.write(request, user)

    async def _check_user(self, request: Request) -> None:
        """Refuse a request in the name of a user that the box has not, whatever it is for."""
        user = basic_user(request.headers)
        if user:
            try:
                await ask(self._box, "expand", user=user, path="")
            except UnknownUser as error:
                raise HttpError(401, str(error)) from None


def _open_to_browsers(request: Request, response: Response) -> Response:
    """Let a page of any origin see the answer: what protects a sandbox is its token, not where a page came
    from."""
    if "origin" in request.headers:
        response.headers.set("access-control-allow-origin", "*")
        response.headers.set("access-control-expose-headers", _EXPOSED)
    return response
