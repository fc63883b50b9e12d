"""A server of the engine in a thread of its own, and a client that speaks HTTP/1.1 byte by byte."""

from __future__ import annotations

import asyncio
import queue
import socket
import threading
from collections.abc import Callable, Coroutine, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import uvloop

from sandbox_local.http import Handler, Limits, Server, listen

WAIT = 10.0
"""Seconds after which a test that waits has failed."""

LOOPS: dict[str, Callable[[], asyncio.AbstractEventLoop]] = {
    "asyncio": asyncio.new_event_loop,
    "uvloop": uvloop.new_event_loop,
}


class Running:
    """A running server, seen from outside its loop."""

    def __init__(self, server: Server, loop: asyncio.AbstractEventLoop) -> None:
        self.server = server
        self.port = server.port
        self.loop = loop

    def call(self, work: Coroutine[Any, Any, Any]) -> Any:
        """Run a coroutine in the server's loop and wait for its result."""
        return asyncio.run_coroutine_threadsafe(work, self.loop).result(WAIT)

    def settle(self) -> None:
        """Wait until the server has taken what was sent to it and waits itself."""

        async def turns() -> None:
            for _ in range(20):
                await asyncio.sleep(0.005)

        self.call(turns())

    def connect(self, *, receive_buffer: int | None = None) -> Wire:
        """A new connection."""
        sock = socket.socket()
        if receive_buffer is not None:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        sock.settimeout(WAIT)
        sock.connect(("127.0.0.1", self.port))
        return Wire(sock)


@contextmanager
def serving(handler: Handler, *, limits: Limits | None = None, loop: str = "asyncio") -> Iterator[Running]:
    """Serve `handler`. Afterwards no task may be left, and nothing may have escaped into the loop."""
    event_loop = LOOPS[loop]()
    escaped: list[object] = []
    event_loop.set_exception_handler(lambda _, context: escaped.append(context))
    started: queue.Queue[Server] = queue.Queue()
    left: list[asyncio.Task[Any]] = []
    stop = asyncio.Event()

    async def main() -> None:
        server = await listen(handler, limits=limits)
        started.put(server)
        await stop.wait()
        await server.close(grace=0.2)
        left.extend(asyncio.all_tasks() - {asyncio.current_task()})

    def run() -> None:
        try:
            event_loop.run_until_complete(main())
        except Exception as error:  # noqa: BLE001 (told to the test below)
            escaped.append(error)

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    try:
        yield Running(started.get(timeout=WAIT), event_loop)
    finally:
        event_loop.call_soon_threadsafe(stop.set)
        thread.join(WAIT)
        assert not thread.is_alive(), "the server did not stop"
        event_loop.run_until_complete(event_loop.shutdown_asyncgens())
        event_loop.close()
    assert not left, left
    assert not escaped, escaped


@dataclass
class Answer:
    """A response as it came."""

    status: int
    headers: dict[str, str]
    body: bytes
    trailers: dict[str, str] = field(default_factory=dict)


class Wire:
    """The client's end of a connection."""

    def __init__(self, sock: socket.socket) -> None:
        self.sock = sock
        self._buffer = b""

    def __enter__(self) -> Wire:
        return self

    def __exit__(self, *_: object) -> None:
        self.sock.close()

    def send(self, data: bytes) -> None:
        self.sock.sendall(data)

    def send_until_refused(self, data: bytes, times: int) -> int:
        """Send the same again and again until the network takes no more; returns how often that worked."""
        for sent in range(times):
            try:
                self.sock.sendall(data)
            except OSError:
                return sent
        return times

    def ask(self, data: bytes, *, head: bool = False) -> Answer:
        """Send a request and read its answer."""
        self.send(data)
        return self.answer(head=head)

    def answer(self, *, head: bool = False) -> Answer:
        """Read the next answer; `head` says that the request was a HEAD."""
        lines = self.until(b"\r\n\r\n").decode("latin-1").split("\r\n")
        status = int(lines[0].split(" ")[1])
        headers = _fields(lines[1:])
        if status < 200:
            return Answer(status, headers, b"")
        if head or status in (204, 304):
            return Answer(status, headers, b"")
        if headers.get("transfer-encoding") == "chunked":
            return Answer(status, headers, *self._chunks())
        if "content-length" in headers:
            return Answer(status, headers, self.exactly(int(headers["content-length"])))
        return Answer(status, headers, self.rest())

    def request(self, path: str) -> None:
        """Send a GET."""
        self.send(f"GET {path} HTTP/1.1\r\nHost: h\r\n\r\n".encode())

    def until(self, mark: bytes) -> bytes:
        """Read up to `mark`, which is left out."""
        while mark not in self._buffer:
            self._more()
        found, _, self._buffer = self._buffer.partition(mark)
        return found

    def exactly(self, size: int) -> bytes:
        """Read so many bytes."""
        while len(self._buffer) < size:
            self._more()
        found, self._buffer = self._buffer[:size], self._buffer[size:]
        return found

    def rest(self) -> bytes:
        """Read until the server closes."""
        while data := self.sock.recv(65536):
            self._buffer += data
        found, self._buffer = self._buffer, b""
        return found

    def shut(self) -> None:
        """Send no more."""
        try:
            self.sock.shutdown(socket.SHUT_WR)
        except OSError:
            pass

    def closed(self) -> bool:
        """Wait for the server to close; whether it did so without another byte."""
        try:
            return self.rest() == b""
        except ConnectionResetError:
            return True

    def _chunks(self) -> tuple[bytes, dict[str, str]]:
        chunks = []
        while size := int(self.until(b"\r\n"), 16):
            chunks.append(self.exactly(size))
            assert self.exactly(2) == b"\r\n"
        trailers = []
        while line := self.until(b"\r\n"):
            trailers.append(line.decode("latin-1"))
        return b"".join(chunks), _fields(trailers)

    def _more(self) -> None:
        data = self.sock.recv(65536)
        if not data:
            raise EOFError(f"the server closed the connection after {self._buffer!r}")
        self._buffer += data


def _fields(lines: list[str]) -> dict[str, str]:
    return {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines if line)}
