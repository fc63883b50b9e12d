"""A gRPC server that does to a client exactly what a test says, frame by frame, on HTTP/2."""

from __future__ import annotations

import contextlib
import socket
import struct
from collections import deque
from collections.abc import Callable, Iterator

from h2.config import H2Configuration
from h2.connection import H2Connection
from h2.events import DataReceived, RequestReceived, StreamEnded

from tests.unit.wire_server import Peer, Received, WireServer, scripted

_PREFACE = b"PRI * HTTP/2.0"


class GrpcPeer:
    """The server's end of one HTTP/2 connection.

    Args:
        peer: The connection.
        most: Bytes that are sent before the connection is cut; None for no cut.
    """

    def __init__(self, peer: Peer, most: int | None = None) -> None:
        self.peer = peer
        self.h2 = H2Connection(H2Configuration(client_side=False, header_encoding="utf-8"))
        self.sent = 0
        self.most = most
        self._heads: dict[int, dict[str, str]] = {}
        self._bodies: dict[int, bytes] = {}
        self._ready: deque[int] = deque()

    def greet(self) -> None:
        """Send the settings that begin a connection."""
        self.h2.initiate_connection()
        self.flush()

    def flush(self) -> None:
        """Send what is due, and end the connection where it is to be cut."""
        data = self.h2.data_to_send()
        if self.most is not None and self.sent + len(data) >= self.most:
            self.peer.send(data[: self.most - self.sent])
            self.sent = self.most
            raise EOFError("cut")
        self.peer.send(data)
        self.sent += len(data)

    def receive(self) -> tuple[int, Received] | None:
        """The next call, whole, and the number of its stream; None when the client has gone."""
        while not self._ready:
            data = self.peer.sock.recv(65536)
            if not data:
                return None
            for event in self.h2.receive_data(data):
                if isinstance(event, RequestReceived):
                    self._heads[event.stream_id] = {str(name): str(value) for name, value in event.headers}
                    self._bodies[event.stream_id] = b""
                elif isinstance(event, DataReceived):
                    self._bodies[event.stream_id] += event.data
                    self.h2.acknowledge_received_data(event.flow_controlled_length, event.stream_id)
                elif isinstance(event, StreamEnded):
                    self._ready.append(event.stream_id)
            self.flush()
        stream = self._ready.popleft()
        head = self._heads[stream]
        return stream, Received("POST", head[":path"], head, self._bodies[stream])

    def head(self, stream: int, *, status: int = 200, end: bool = False, **headers: str) -> None:
        """Send the head of an answer. Header names are given with underscores."""
        named = {"content-type": "application/grpc"} | {k.replace("_", "-"): v for k, v in headers.items()}
        self.h2.send_headers(stream, [(":status", str(status)), *named.items()], end_stream=end)
        self.flush()

    def data(self, stream: int, data: bytes, *, end: bool = False) -> None:
        self.h2.send_data(stream, data, end_stream=end)
        self.flush()

    def trailers(self, stream: int, status: int = 0, message: str = "", **headers: str) -> None:
        """End an answer with a status of gRPC."""
        named = {"grpc-status": str(status), "grpc-message": message}
        named |= {k.replace("_", "-"): v for k, v in headers.items()}
        self.h2.send_headers(stream, list(named.items()), end_stream=True)
        self.flush()

    def refuse(self, stream: int, status: int, message: str = "", **headers: str) -> None:
        """Answer with nothing but a status of gRPC."""
        told = {"grpc_status": str(status), "grpc_message": message}
        self.head(stream, end=True, **{**told, **headers})  # type: ignore[arg-type]  # headers, all of them


def message(data: bytes, *, size: int | None = None, flags: int = 0) -> bytes:
    """A message as gRPC puts it on the wire; `size` is another than its own."""
    return struct.pack(">BI", flags, len(data) if size is None else size) + data


@contextlib.contextmanager
def serving(
    script: Callable[[GrpcPeer], object],
    *,
    health: int | None = 204,
    most: Callable[[], int | None] = lambda: None,
) -> Iterator[WireServer]:
    """Serve each HTTP/2 connection with `script`, and plain HTTP, which is a health check, with a status.

    Args:
        script: Is given a connection that has not been greeted.
        health: The status; None for no answer at all.
        most: How many bytes to send on a connection before it is cut.
    """

    def run(peer: Peer) -> None:
        begin = b""
        while len(begin) < 4 and (begin != peer.sock.recv(4, socket.MSG_PEEK) or begin):
            begin = peer.sock.recv(4, socket.MSG_PEEK)
            if not begin:
                return
        if _PREFACE.startswith(begin):
            with contextlib.suppress(EOFError):
                script(GrpcPeer(peer, most()))
        else:
            while peer.receive() is not None and health is not None:
                peer.answer(health)

    with scripted(run) as server:
        yield server


def answering(
    handler: Callable[[GrpcPeer, int, Received], object],
) -> Callable[[GrpcPeer], None]:
    """A script for `serving` that gives each call to a handler, with the number of its stream."""

    def script(peer: GrpcPeer) -> None:
        peer.greet()
        while (call := peer.receive()) is not None:
            handler(peer, *call)

    return script
