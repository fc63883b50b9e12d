"""A sandbox that a test plays: over Connect and plain HTTP, or over gRPC."""

from __future__ import annotations

import base64
import ssl
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from sandbox_sync_rpc import process_pb2 as pb

from tests.unit import grpc_server
from tests.unit.wire_server import END, STREAM_HEAD, Peer, Received, WireServer, answering, chunk, frame


def user_of(authorization: str) -> str:
    return base64.b64decode(authorization.removeprefix("Basic ")).decode().removesuffix(":")


def tagged(tag: str) -> pb.ListResponse:
    return pb.ListResponse(processes=[pb.ProcessInfo(tag=tag)])


def event(data: bytes) -> pb.StartResponse:
    message = pb.StartResponse()
    message.event.data.stdout = data
    return message


def respond(peer: Peer, request: Received) -> None:
    """List tells who asks. Start says something now and when the seconds that are its tag are over."""
    name = request.target.rpartition("/")[2]
    if name == "List":
        body = tagged(user_of(request.headers["authorization"])).SerializeToString()
        peer.answer(body=body, content_type="application/proto")
    elif name == "Start":
        started = pb.StartRequest.FromString(request.body[5:])
        peer.send(STREAM_HEAD + chunk(frame(event(b"first").SerializeToString())))
        peer.sock.settimeout(float(started.tag))
        try:
            peer.sock.recv(1)
        except TimeoutError:
            peer.sock.settimeout(None)
            peer.send(chunk(frame(event(b"last").SerializeToString())) + chunk(END) + b"0\r\n\r\n")
    elif name == "health":
        peer.answer(204)
    else:
        peer.wait_for_end()


@contextmanager
def sandbox(context: ssl.SSLContext | None = None) -> Iterator[WireServer]:
    """The sandbox over HTTP. What it does not know it never answers."""
    with answering(respond, context=context) as server:
        yield server


@contextmanager
def grpc_sandbox() -> Iterator[str]:
    """The same over gRPC."""
    import threading

    def list_processes(request: Any, context: Any) -> pb.ListResponse:
        headers = {item.key: item.value for item in context.invocation_metadata()}
        return tagged(user_of(headers["authorization"]))

    def start(request: pb.StartRequest, context: Any) -> Iterator[pb.StartResponse]:
        over = threading.Event()
        context.add_callback(over.set)
        yield event(b"first")
        if not over.wait(float(request.tag)):
            yield event(b"last")

    def never(request: Any, context: Any) -> None:
        over = threading.Event()
        context.add_callback(over.set)
        over.wait(60)

    def silent(request: Any, context: Any) -> Iterator[pb.ConnectResponse]:
        never(request, context)
        return iter([])

    behaviours = {
        "List": list_processes,
        "Start": start,
        "Connect": silent,
        "SendInput": never,
        "StreamInput": never,
    }
    with grpc_server.serving(behaviours) as url:
        yield url
