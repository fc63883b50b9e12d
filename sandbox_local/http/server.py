"""A TCP port on which HTTP/1.1 and HTTP/2 are served by one handler."""

from __future__ import annotations

import asyncio
import logging
import socket
from collections.abc import Sequence

from sandbox_local.http.h1 import H1
from sandbox_local.http.h2 import H2
from sandbox_local.http.limits import Limits
from sandbox_local.http.link import Codec, Link
from sandbox_local.http.message import Handler

log = logging.getLogger(__name__)

_RECEIVE_BUFFER = 256 << 10
_CLEANUP_SECONDS = 5.0  # for handlers that were cancelled
_FULL = b"HTTP/1.1 503 Service Unavailable\r\nconnection: close\r\ncontent-length: 0\r\n\r\n"
_HTTP2_SIGN = b"PRI"  # no HTTP/1.1 method starts like the preface of HTTP/2


async def listen(
    handler: Handler,
    host: str = "127.0.0.1",
    port: int = 0,
    *,
    sockets: Sequence[socket.socket] = (),
    limits: Limits | None = None,
) -> Server:
    """Serve `handler` on a TCP port.

    Args:
        handler: Answers every request.
        host: Address to listen on.
        port: Port to listen on, 0 for any free one.
        sockets: Listening sockets to use instead of `host` and `port`.
        limits: The bounds that clients are held to.

    Returns:
        The running server.

    Raises:
        OSError: The address can't be had.
    """
    server = Server(handler, limits or Limits())
    await server.start(host, port, sockets)
    return server


class Server:
    """A running server; `listen` makes it.

    Attributes:
        port: The TCP port it listens on (the first one).
    """

    port: int

    def __init__(self, handler: Handler, limits: Limits) -> None:
        """Make a server that does not listen yet."""
        self.buffer = memoryview(bytearray(_RECEIVE_BUFFER))
        self._handler = handler
        self._limits = limits
        self._links: set[Link] = set()
        self._ending: set[asyncio.Task[None]] = set()
        self._listeners: list[asyncio.Server] = []
        self._watch: asyncio.TimerHandle | None = None
        self._empty = asyncio.Event()
        self._empty.set()

    async def start(self, host: str, port: int, sockets: Sequence[socket.socket]) -> None:
        """Listen."""
        self._loop = asyncio.get_running_loop()
        if sockets:
            for sock in sockets:
                self._listeners.append(await self._loop.create_server(self._link, sock=sock, backlog=1024))
        else:
            self._listeners.append(await self._loop.create_server(self._link, host, port, backlog=1024))
        self.port = self._listeners[0].sockets[0].getsockname()[1]
        self._patrol()

    async def close(self, grace: float = 5.0) -> None:
        """Stop: no more connections, no more requests; running requests may finish, for a while.

        Args:
            grace: Seconds that running requests have until they are cancelled.
        """
        for listener in self._listeners:
            listener.close()
        for link in list(self._links):
            if link.codec is not None:
                link.codec.stop()
        try:
            await asyncio.wait_for(self._empty.wait(), grace)
        except asyncio.TimeoutError:
            for link in list(self._links):
                link.abort()
            await self._empty.wait()
        if self._ending:
            await asyncio.wait(self._ending, timeout=_CLEANUP_SECONDS)
        if self._watch is not None:
            self._watch.cancel()

    def opened(self, link: Link) -> Codec | None:
        """Take a new connection, or turn it away when there are too many."""
        self._links.add(link)
        self._empty.clear()
        if len(self._links) > self._limits.connections:
            link.write(_FULL)
            link.close()
            return None
        return _Unknown(link, self._handler, self._limits)

    def closed(self, link: Link) -> None:
        """Forget a connection, and remember what is still running for it."""
        self._links.discard(link)
        for task in link.codec.running() if link.codec is not None else ():
            self._ending.add(task)
            task.add_done_callback(self._ending.discard)
        if not self._links:
            self._empty.set()

    def _link(self) -> Link:
        return Link(self, self._limits.write_buffer)

    def _patrol(self) -> None:
        """Look for connections whose time is up, and for clients that went away while nobody was reading."""
        self._watch = self._loop.call_later(min(1.0, self._limits.header_seconds / 4), self._patrol)
        now = self._loop.time()
        for link in list(self._links):
            if link.deadline is not None and link.deadline <= now and link.codec is not None:
                link.codec.expired()
            elif link.abandoned():
                link.abort()


class _Unknown:
    """A connection whose first bytes have not told yet which HTTP it is."""

    half_open = False

    def __init__(self, link: Link, handler: Handler, limits: Limits) -> None:
        self._link = link
        self._handler = handler
        self._limits = limits
        self._first = b""
        link.deadline = asyncio.get_running_loop().time() + limits.idle_seconds

    def receive(self, data: memoryview) -> None:
        first = self._first + bytes(data[: len(_HTTP2_SIGN)])
        if len(first) < len(_HTTP2_SIGN) and _HTTP2_SIGN.startswith(first):
            self._first = first
            self._link.deadline = asyncio.get_running_loop().time() + self._limits.header_seconds
            return
        kind = H2 if first.startswith(_HTTP2_SIGN) else H1
        codec: Codec = kind(self._link, self._handler, self._limits)
        self._link.codec = codec
        if self._first:
            codec.receive(memoryview(self._first))
        codec.receive(data)

    def ended(self) -> None:
        pass

    def lost(self) -> None:
        pass

    def expired(self) -> None:
        self._link.abort()

    def stop(self) -> None:
        self._link.close()

    def running(self) -> list[asyncio.Task[None]]:
        return []
