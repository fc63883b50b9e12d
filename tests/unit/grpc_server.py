"""A real gRPC server whose methods do what a test says."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any

import grpc
from sandbox_sync_rpc import services

Behaviour = Callable[[Any, grpc.ServicerContext], Any]


@contextmanager
def serving(
    behaviours: Mapping[str, Behaviour],
    credentials: grpc.ServerCredentials | None = None,
    threads: int = 64,
    streams: int | None = None,
) -> Iterator[str]:
    """Serve methods, by name; the others do not exist. Yields the server's URL.

    Args:
        behaviours: What they do.
        credentials: For a server that speaks TLS.
        threads: How many calls it can be in at once.
        streams: How many it allows on a connection.
    """
    options = [("grpc.max_receive_message_length", -1), ("grpc.max_send_message_length", -1)]
    if streams is not None:
        options.append(("grpc.max_concurrent_streams", streams))
    server = grpc.server(ThreadPoolExecutor(threads), options=options)
    for service in (services.PROCESS, services.FILESYSTEM):
        handlers = {
            name: _handler(method, behaviours[name])
            for name, method in service.methods.items()
            if name in behaviours
        }
        server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(service.name, handlers),))
    if credentials is None:
        port = server.add_insecure_port("127.0.0.1:0")
    else:
        port = server.add_secure_port("127.0.0.1:0", credentials)
    server.start()
    try:
        yield f"{'http' if credentials is None else 'https'}://127.0.0.1:{port}"
    finally:
        server.stop(None).wait()


def _handler(method: services.Method, behaviour: Behaviour) -> grpc.RpcMethodHandler[Any, Any]:
    make: Any = grpc.unary_unary_rpc_method_handler
    if method.client_streaming:
        make = grpc.stream_unary_rpc_method_handler
    elif method.server_streaming:
        make = grpc.unary_stream_rpc_method_handler
    return make(  # type: ignore[no-any-return]
        behaviour,
        request_deserializer=method.request.FromString,
        response_serializer=lambda message: message.SerializeToString(),
    )
