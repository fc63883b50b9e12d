"""The reverse proxy to a port of a box, between real sockets; the box here is this machine."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Awaitable, Callable
from typing import cast

from sandbox_local import proxy
from sandbox_local.http import HttpError, Request, Response, listen
from sandbox_local.isolation.base import Box
from sandbox_local.tunnel import PortClosed, tunnel

Peer = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


class Dialer:
    """The part of a box that the proxy uses."""

    def __init__(self) -> None:
        self.ended: asyncio.Future[str] = asyncio.get_running_loop().create_future()

    async def connect(self, port: int) -> socket.socket:
        sock = socket.socket()
        sock.setblocking(False)
        try:
            await asyncio.get_running_loop().sock_connect(sock, ("127.0.0.1", port))
        except BaseException:
            sock.close()
            raise
        return sock


class Through:
    """A proxy in front of `peer`, and the bytes that come back through it."""

    def __init__(self, port: int, inner: int) -> None:
        self.port = port
        self.inner = inner

    async def open(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        return await asyncio.open_connection("127.0.0.1", self.port)

    async def ask(self, text: bytes) -> bytes:
        """Everything that comes back until the connection closes."""
        reader, writer = await self.open()
        try:
            writer.write(text)
            return await reader.read()
        finally:
            writer.close()

    async def get(self, target: bytes = b"/", method: bytes = b"GET") -> bytes:
        return await self.ask(
            b"%b %b HTTP/1.1\r\nHost: 8000-i1.localhost\r\nConnection: close\r\n\r\n" % (method, target)
        )


def with_proxy(peer: Peer, test: Callable[[Through], Awaitable[None]]) -> None:
    async def run() -> None:
        inner = await asyncio.start_server(peer, "127.0.0.1", 0)
        port = inner.sockets[0].getsockname()[1]

        async def handle(request: Request) -> Response:
            try:
                if request.method == "CONNECT":
                    return await tunnel(cast(Box, Dialer()), port)
                return await proxy.forward(request, cast(Box, Dialer()), port)
            except PortClosed as error:
                raise HttpError(502, error.message) from None

        server = await listen(handle)
        try:
            await asyncio.wait_for(test(Through(server.port, port)), 30)
        finally:
            await server.close(0)
            inner.close()

    asyncio.run(run())


def answering(answer: bytes, seen: list[bytes] | None = None) -> Peer:
    """A peer that reads a head, gives one answer and closes."""

    async def peer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = await reader.readuntil(b"\r\n\r\n")
        if seen is not None:
            seen.append(head)
        writer.write(answer)
        await writer.drain()
        writer.close()

    return peer


def body_of(answer: bytes) -> bytes:
    return answer.partition(b"\r\n\r\n")[2]
