"""A client that speaks to a server by hand, on sockets that a test can break."""

from __future__ import annotations

import base64
import json
import socket
import struct
from collections.abc import Iterator
from typing import Any
from urllib.parse import quote

SECONDS = 20.0
"""What no answer takes; whoever waits longer has found a hang."""


class Broken(Exception):
    """The connection ended before the answer did."""


class Refused(Exception):
    """An answer that is no success."""

    def __init__(self, status: int, text: str) -> None:
        super().__init__(status, text)
        self.status = status


class Connection:
    """One TCP connection, on which HTTP/1.1 is spoken as far as these tests need it."""

    def __init__(self, port: int) -> None:
        try:
            self.socket = socket.create_connection(("127.0.0.1", port), SECONDS)
        except ConnectionError as error:
            raise Broken(repr(error)) from None
        self._buffer = b""

    def send(self, data: bytes) -> None:
        try:
            self.socket.sendall(data)
        except (BrokenPipeError, ConnectionResetError) as error:
            raise Broken(repr(error)) from None

    def head(self) -> tuple[int, dict[str, str]]:
        """Read the head of an answer."""
        while b"\r\n\r\n" not in self._buffer:
            self._fill()
        head, _, self._buffer = self._buffer.partition(b"\r\n\r\n")
        first, *lines = head.decode("latin-1").split("\r\n")
        fields = (line.split(": ", 1) for line in lines)
        return int(first.split()[1]), {name.lower(): value for name, value in fields}

    def body(self, fields: dict[str, str]) -> bytes:
        """Read the body that belongs to a head."""
        if fields.get("transfer-encoding") == "chunked":
            return b"".join(self.chunks())
        return self.take(int(fields.get("content-length", "0")))

    def chunks(self) -> Iterator[bytes]:
        """The pieces of a body as they come."""
        while True:
            while b"\r\n" not in self._buffer:
                self._fill()
            size, _, self._buffer = self._buffer.partition(b"\r\n")
            chunk = self.take(int(size, 16) + 2)[:-2]
            if not chunk:
                return
            yield chunk

    def take(self, size: int) -> bytes:
        """Read so many bytes."""
        while len(self._buffer) < size:
            self._fill()
        data, self._buffer = self._buffer[:size], self._buffer[size:]
        return data

    def close(self, *, reset: bool = False) -> None:
        """Go away: politely, or as a machine that has crashed and come back does."""
        if reset:
            self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.socket.close()

    def _fill(self) -> None:
        try:
            data = self.socket.recv(1 << 16)
        except ConnectionResetError as error:
            raise Broken(repr(error)) from None
        if not data:
            raise Broken("end of file")
        self._buffer += data


def head(method: str, path: str, fields: dict[str, str], length: int | None) -> bytes:
    """The head of a request; `length` of its body, None for a chunked one."""
    framing = {"Transfer-Encoding": "chunked"} if length is None else {"Content-Length": str(length)}
    lines = [f"{name}: {value}" for name, value in {"Host": "x", **fields, **framing}.items()]
    return "\r\n".join([f"{method} {path} HTTP/1.1", *lines, "", ""]).encode()


def envelope(message: dict[str, Any]) -> bytes:
    """A message of a Connect stream."""
    payload = json.dumps(message).encode()
    return struct.pack(">BI", 0, len(payload)) + payload


class Client:
    """Speaks to the control plane of one server."""

    def __init__(self, port: int, api_key: str) -> None:
        self.port = port
        self.api_key = api_key

    def ask(self, method: str, path: str, body: object = None) -> Any:
        """One request on a connection of its own; returns the JSON of the answer.

        Raises:
            Refused: The answer is none of success.
            Broken: There was no whole answer.
        """
        content = b"" if body is None else json.dumps(body).encode()
        fields = {"X-API-Key": self.api_key, "Content-Type": "application/json"}
        return json.loads(exchange(self.port, method, path, fields, content) or b"null")

    def create(self, **fields: Any) -> Box:
        """A sandbox."""
        return Box(self, self.ask("POST", "/v2/sandboxes", {"templateID": "base", "timeout": 300, **fields}))

    def living(self) -> list[str]:
        """The ids of the sandboxes that live."""
        return [found["sandboxID"] for found in self.ask("GET", "/v2/sandboxes?limit=100")]


class Box:
    """A sandbox, as a client sees it."""

    def __init__(self, client: Client, made: dict[str, Any]) -> None:
        self.client = client
        self.id: str = made["sandboxID"]
        self.path = f"/sandboxes/{self.id}"
        self._token: str | None = made.get("envdAccessToken")

    def kill(self) -> None:
        """End it."""
        self.client.ask("DELETE", self.path)

    def lives(self) -> bool:
        """Whether the server knows it."""
        try:
            self.client.ask("GET", self.path)
        except Refused as refused:
            if refused.status == 404:
                return False
            raise
        return True

    def fields(self, port: int = 49983, kind: str = "", user: str = "user") -> dict[str, str]:
        """The header fields of a request to one of its ports."""
        fields = {"E2b-Sandbox-Id": self.id, "E2b-Sandbox-Port": str(port)}
        if kind:
            fields["Content-Type"] = kind
        if port == 49983:
            fields["Authorization"] = "Basic " + base64.b64encode(f"{user}:".encode()).decode()
            fields |= {"X-Access-Token": self._token} if self._token else {}
        return fields

    def call(self, method: str, message: dict[str, Any], user: str = "user") -> Any:
        """A unary call of envd."""
        fields = self.fields(kind="application/json", user=user)
        return json.loads(exchange(self.client.port, "POST", method, fields, json.dumps(message).encode()))

    def open_stream(self, method: str, message: dict[str, Any], user: str = "user") -> Stream:
        """A call of envd that streams."""
        stream = Stream(self.client.port)
        content = envelope(message)
        fields = self.fields(kind="application/connect+json", user=user)
        stream.send(head("POST", method, fields, len(content)) + content)
        return stream

    def start(self, script: str, user: str = "user", **fields: Any) -> Stream:
        """Start a command of the shell."""
        process = {"cmd": "/bin/bash", "args": ["-c", script]}
        message = {"process": process, "stdin": False, **fields}
        return self.open_stream("/process.Process/Start", message, user).begun()

    def run(self, script: str, user: str = "user") -> str:
        """The standard output of a command of the shell, which must succeed."""
        with self.start(script, user) as stream:
            written = b""
            for event in stream.events():
                written += output(event)
                assert event.get("end", {}).get("exitCode", 0) == 0, (script, event, written)
        return written.decode()

    def watch(self, path: str) -> Stream:
        """Watch a directory."""
        return self.open_stream("/filesystem.Filesystem/WatchDir", {"path": path}).begun()

    def write(self, path: str, content: bytes) -> None:
        """Write a file."""
        fields = self.fields(kind="application/octet-stream")
        exchange(self.client.port, "POST", f"/files?path={quote(path)}", fields, content)

    def read(self, path: str) -> bytes:
        """Read a file."""
        return exchange(self.client.port, "GET", f"/files?path={quote(path)}", self.fields(), b"")

    def get(self, port: int) -> bytes:
        """What listens on one of its ports answers."""
        return exchange(self.client.port, "GET", "/", self.fields(port), b"")


class Stream(Connection):
    """The answer of a call that streams."""

    def __enter__(self) -> Stream:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def begun(self) -> Stream:
        """Wait until the first event is there; returns itself."""
        try:
            status, fields = self.head()
            if status != 200:
                raise Refused(status, self.body(fields).decode())
            self._frames = self._unpack()
            next(self._frames)
        except BaseException:
            self.close()
            raise
        return self

    def events(self) -> Iterator[dict[str, Any]]:
        """The events that follow, to the end of the stream.

        Raises:
            Refused: It ended with an error.
        """
        return self._frames

    def next(self) -> dict[str, Any]:
        """The next event; there must be one."""
        event = next(self._frames, None)
        if event is None:
            raise Broken("the stream ended")
        return event

    def _unpack(self) -> Iterator[dict[str, Any]]:
        data = b""
        for chunk in self.chunks():
            data += chunk
            while len(data) >= 5 and len(data) >= 5 + (size := struct.unpack(">I", data[1:5])[0]):
                last, content, data = data[0] & 2, json.loads(data[5 : 5 + size] or b"{}"), data[5 + size :]
                if not last:
                    yield content.get("event", content)
                elif "error" in content:
                    raise Refused(200, json.dumps(content["error"]))
        return


def exchange(port: int, method: str, path: str, fields: dict[str, str], content: bytes) -> bytes:
    """One request and its answer, on a connection of its own.

    Raises:
        Refused: The answer is none of success.
        Broken: There was no whole answer.
    """
    connection = Connection(port)
    try:
        connection.send(head(method, path, {**fields, "Connection": "close"}, len(content)) + content)
        status, answered = connection.head()
        body = connection.body(answered)
    finally:
        connection.close()
    if not 200 <= status < 300:
        raise Refused(status, body.decode(errors="replace"))
    return body


def output(event: dict[str, Any]) -> bytes:
    """What an event says a process has written to its standard output."""
    return base64.b64decode(event.get("data", {}).get("stdout", ""))
