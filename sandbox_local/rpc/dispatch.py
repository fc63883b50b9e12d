"""From the path and content type of a request to the method and protocol that answer it."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable, Mapping
from typing import Any

from sandbox_sync_rpc.services import Service

from sandbox_local.http import HttpError, Request, Response
from sandbox_local.rpc import connect, grpc
from sandbox_local.rpc.call import Endpoint, Implementation
from sandbox_local.rpc.codec import JSON, PROTO, Codec
from sandbox_local.rpc.codes import Code, RpcError

Protocol = Callable[[Endpoint, Request, Any, Codec, str], Awaitable[Response]]

_GRPC: dict[str, tuple[Protocol, Codec]] = {
    f"application/{name}{suffix}": (grpc.call, codec)
    for name in ("grpc", "grpc-web")
    for suffix, codec in (("", PROTO), ("+proto", PROTO), ("+json", JSON))
}
_UNARY: dict[str, tuple[Protocol, Codec]] = {
    "application/json": (connect.unary, JSON),
    "application/proto": (connect.unary, PROTO),
    **_GRPC,
}
_STREAMING: dict[str, tuple[Protocol, Codec]] = {
    "application/connect+json": (connect.streaming, JSON),
    "application/connect+proto": (connect.streaming, PROTO),
    **_GRPC,
}


class Rpc:
    """Services and their handlers, reachable over Connect, gRPC and gRPC-Web."""

    def __init__(self, services: Iterable[tuple[Service, Mapping[str, Implementation]]]) -> None:
        """Bind services.

        Args:
            services: Each service with its handlers by method name. A handler takes a request message (an
                asynchronous iterator of them if the client streams) and a `Context`; it is a coroutine
                function that returns the response message, or an asynchronous generator if the server
                streams.

        Raises:
            ValueError: A method has no handler, or a handler no method.
        """
        self._endpoints: dict[str, Endpoint] = {}
        for service, handlers in services:
            if handlers.keys() != service.methods.keys():
                difference = sorted(handlers.keys() ^ service.methods.keys())
                raise ValueError(f"{service.name}: handlers and methods differ in {', '.join(difference)}")
            for name, method in service.methods.items():
                self._endpoints[method.path] = Endpoint(method, handlers[name])

    def __contains__(self, path: str) -> bool:
        return path in self._endpoints

    async def handle(self, request: Request, sandbox: Any) -> Response:
        """Answer a request.

        Args:
            request: Any request.
            sandbox: Given to the handler as `context.sandbox`.

        Raises:
            HttpError: It is no call of a method (404, 405, 415).
        """
        content_type = request.headers.get("content-type", "").partition(";")[0].strip().lower()
        endpoint = self._endpoints.get(request.path)
        if endpoint is None:
            if content_type in _GRPC:
                return grpc.failure(RpcError(Code.UNIMPLEMENTED, f"no method {request.path}"), content_type)
            raise HttpError(404, f"no method {request.path}")
        if request.method != "POST":
            raise HttpError(405, "methods are called with POST", headers={"allow": "POST"})
        streams = endpoint.method.client_streaming or endpoint.method.server_streaming
        protocols = _STREAMING if streams else _UNARY
        if content_type not in protocols:
            message = f"content type {content_type[:100]!r} is not spoken here, see Accept-Post"
            raise HttpError(415, message, headers={"accept-post": ", ".join(protocols)})
        protocol, codec = protocols[content_type]
        return await protocol(endpoint, request, sandbox, codec, content_type)
