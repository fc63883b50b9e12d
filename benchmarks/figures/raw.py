"""A client that does next to nothing, so that what is measured is the server."""

from __future__ import annotations

import json
import os
import re
import socket
import struct
from typing import Any

from sandbox_sync_rpc import process_pb2

from sandbox_local import LocalServer

_PREFIX = struct.Struct(">BI")
_SECONDS = 120


class RawSandbox:
    """A sandbox as it is on the wire: one connection for each request."""

    def __init__(self, server: LocalServer) -> None:
        """Create it."""
        host, port = server.url.removeprefix("http://").split(":")
        self._address = host, int(port)
        self._server = server
        made = json.loads(self._control("POST", "/v2/sandboxes", {"templateID": "base", "timeout": 3600}))
        self._id = made["sandboxID"]
        self._token = made.get("envdAccessToken") or ""

    def kill(self) -> None:
        """End it."""
        self._control("DELETE", f"/sandboxes/{self._id}")

    def run(self, script: str) -> bytes:
        """What a shell script writes to its standard output; it must exit 0."""
        answer = bytearray(1 << 20)
        size = self.follow(script, answer)
        return self.output(answer[:size])

    def follow(self, script: str, into: bytearray) -> int:
        """Run a shell script; puts the body of the answer, chunks and all, into `into`; gives its length."""
        config = process_pb2.ProcessConfig(cmd="/bin/bash", args=["-c", script])
        message = process_pb2.StartRequest(process=config, stdin=False).SerializeToString()
        body = _PREFIX.pack(0, len(message)) + message
        head = self._head("POST", "/process.Process/Start", "application/connect+proto", len(body))
        with self._connect() as sock:
            sock.sendall(head + body)
            status, _, rest = _read_head(sock)
            if status != 200:
                raise RuntimeError(f"status {status}: {rest!r}")
            size = len(rest)
            view = memoryview(into)
            view[:size] = rest
            while count := sock.recv_into(view[size:]):
                size += count
        return size

    def output(self, body: bytearray) -> bytes:
        """The standard output in a body of `follow`; it must be whole, and its process must have exited 0."""
        output = []
        code = None
        plain = memoryview(_dechunked(body))
        while plain:
            flags, length = _PREFIX.unpack_from(plain)
            payload, plain = plain[_PREFIX.size :][:length], plain[_PREFIX.size + length :]
            if flags:
                ended = json.loads(bytes(payload))
                if ended:
                    raise RuntimeError(f"the stream ended with {ended}")
                break
            event = process_pb2.StartResponse.FromString(bytes(payload)).event
            if event.HasField("data"):
                output.append(event.data.stdout)
            elif event.HasField("end"):
                code = event.end.exit_code
        if code != 0:
            raise RuntimeError(f"the process ended with {code}")
        return b"".join(output)

    def upload(self, path: str, fd: int, length: int) -> None:
        """Write a file from a descriptor by sendfile."""
        target = f"/files?path={path}&username=user"
        with self._connect() as sock:
            sock.sendall(self._head("POST", target, "application/octet-stream", length))
            offset = 0
            while offset < length:
                offset += os.sendfile(sock.fileno(), fd, offset, length - offset)
            status, _, rest = _read_head(sock)
            if status != 200:
                raise RuntimeError(f"status {status}: {rest!r}")

    def download(self, path: str, buffer: memoryview) -> int:
        """Read a file through a buffer, piece after piece, and drop it; returns its length."""
        target = f"/files?path={path}&username=user"
        with self._connect() as sock:
            sock.sendall(self._head("GET", target, "application/octet-stream", 0))
            status, length, rest = _read_head(sock)
            if status != 200:
                raise RuntimeError(f"status {status}: {rest!r}")
            left = length - len(rest)
            while left and (count := sock.recv_into(buffer)):
                left -= count
        if left:
            raise RuntimeError(f"{left} of {length} bytes are missing")
        return length

    def _connect(self) -> socket.socket:
        sock = socket.create_connection(self._address, _SECONDS)
        sock.settimeout(None)  # else each call would be two, and sendfile would not wait
        for option in (socket.SO_RCVTIMEO, socket.SO_SNDTIMEO):
            sock.setsockopt(socket.SOL_SOCKET, option, struct.pack("ll", _SECONDS, 0))
        return sock

    def _head(self, method: str, target: str, kind: str, length: int) -> bytes:
        return (
            f"{method} {target} HTTP/1.1\r\nHost: server\r\nConnection: close\r\n"
            f"E2b-Sandbox-Id: {self._id}\r\nE2b-Sandbox-Port: 49983\r\nX-Access-Token: {self._token}\r\n"
            f"Content-Type: {kind}\r\nContent-Length: {length}\r\n\r\n"
        ).encode()

    def _control(self, method: str, path: str, fields: dict[str, Any] | None = None) -> bytes:
        body = b"" if fields is None else json.dumps(fields).encode()
        head = (
            f"{method} {path} HTTP/1.1\r\nHost: server\r\nConnection: close\r\n"
            f"X-API-Key: {self._server.api_key}\r\n"
            f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
        )
        with self._connect() as sock:
            sock.sendall(head.encode() + body)
            status, length, rest = _read_head(sock)
            while len(rest) < length and (more := sock.recv(1 << 16)):
                rest += more
        if status not in (201, 204):
            raise RuntimeError(f"{method} {path}: status {status}: {rest!r}")
        return rest


def _read_head(sock: socket.socket) -> tuple[int, int, bytes]:
    """Status, announced length (0 if none is) and what of the body has come with the head."""
    received = b""
    while b"\r\n\r\n" not in received:
        more = sock.recv(1 << 16)
        if not more:
            raise RuntimeError(f"no answer but {received!r}")
        received += more
    head, _, rest = received.partition(b"\r\n\r\n")
    length = re.search(rb"(?i)\r\ncontent-length: (\d+)", head)
    return int(head.split()[1]), int(length[1]) if length else 0, rest


def _dechunked(body: bytearray) -> bytes:
    pieces: list[bytes] = []
    at = 0
    while True:
        end = body.index(b"\r\n", at)
        size = int(body[at:end], 16)
        if size == 0:
            return b"".join(pieces)
        pieces.append(bytes(body[end + 2 : end + 2 + size]))
        at = end + 4 + size
