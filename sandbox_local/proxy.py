"""A reverse proxy to what listens on a port inside a box: plain HTTP/1.1, one connection for each request.

What comes out of a box was written by code nobody trusts: heads are bounded, the parser checks the framing,
and a body that ends too early is cut here as well.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Iterable

import httptools

from sandbox_local.http import ByteStream, Headers, HttpError, Request, Response, Tunnel
from sandbox_local.isolation.base import Box
from sandbox_local.tunnel import PIECE, PortClosed, dial, relay

_HEAD_BYTES = 64 << 10

# How long a client that expects 100 is kept waiting for it, where what listens sends none.
_INVITATION_SECONDS = 1.0

# Fields that are about one connection, not about the message.
_HOP_BY_HOP = frozenset(
    {
        "connection",
        "keep-alive",
        "proxy-connection",
        "te",
        "trailer",
        "transfer-encoding",
        "upgrade",
        "http2-settings",
    }
)

# For the proxy alone: what listens in the box has no need of it.
_PRIVATE = frozenset({"e2b-traffic-access-token"})


async def forward(request: Request, box: Box, port: int) -> Response:
    """Answer a request by what listens on a port of a box.

    Args:
        request: The request; its body is sent on as it comes.
        box: The box.
        port: The TCP port in it.

    Returns:
        The answer of the server in the box; its body is passed on as it comes.

    Raises:
        PortClosed: Nothing listens there, or what listens gives no answer in HTTP.
        BoxGone: The box has ended.
    """
    upstream = _Upstream(*await dial(box, port), box.ended)
    try:
        return await upstream.exchange(request)
    except (ConnectionError, EOFError) as error:
        await upstream.close()
        reason = str(error) or "it closed the connection"
        raise PortClosed(f"What listens on the port gave no answer in HTTP: {reason}") from None
    except BaseException:
        await upstream.close()
        raise


class _Upstream:
    """One connection into a box, and the one exchange on it. The methods `on_...` are the parser's."""

    def __init__(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, box_ended: asyncio.Future[str]
    ) -> None:
        self._reader = reader
        self._writer = writer
        self._box_ended = box_ended
        self._parser = httptools.HttpResponseParser(self)
        self._sending: asyncio.Task[None] | None = None
        self._fields: list[tuple[str, str]] = []
        self._status = 0  # of the final head, once it is complete
        self._invited = asyncio.Event()  # it has answered, be it 100
        self._complete = False
        self._body: list[bytes] = []
        self._behind = b""  # bytes that follow the head of a 101

    async def exchange(self, request: Request) -> Response:
        if request.body.length is None and request.body.complete and not request.body.buffered:
            request.body.length = 0  # HTTP/2 announces no length, not even of what has no body
        upgrade = request.headers.get("upgrade") if request.version == "1.1" else None
        self._writer.write(_head(request, upgrade))
        self._sending = asyncio.get_running_loop().create_task(self._send_body(request))
        received = 0
        while not self._status and received <= _HEAD_BYTES:
            received += await self._receive()
        if not self._status or sum(len(name) + len(value) for name, value in self._fields) > _HEAD_BYTES:
            raise ConnectionError(f"the head of its answer is longer than {_HEAD_BYTES} bytes")
        headers = Headers(_end_to_end(self._fields))
        if self._status == 101:
            if upgrade is None:
                raise ConnectionError("it changed the protocol unasked")
            headers.set("connection", "upgrade")
            headers.set("upgrade", dict(self._fields).get("upgrade", upgrade))
            return Response(101, headers, Tunnel(self._tunnel))
        if request.method == "HEAD" or self._status in (204, 304):
            await self.close()
            # The engine sends no body either; the iterator only keeps the announced length as it is.
            return Response(self._status, headers, _nothing())
        return Response(self._status, headers, self._pieces(headers))

    async def close(self) -> None:
        self._writer.transport.abort()
        if self._sending is not None:
            self._sending.cancel()
            await asyncio.wait([self._sending])

    async def _send_body(self, request: Request) -> None:
        chunked = request.body.length is None
        if "expect" in request.headers:
            # Whoever is asked for the body sends it, so it is asked for when what listens wants it.
            with contextlib.suppress(asyncio.TimeoutError):
                await asyncio.wait_for(self._invited.wait(), _INVITATION_SECONDS)
            if self._status:
                return
        try:
            async for chunk in request.body:
                self._writer.write(b"%x\r\n%b\r\n" % (len(chunk), chunk) if chunked else chunk)
                await self._writer.drain()
            if chunked:
                self._writer.write(b"0\r\n\r\n")
                await self._writer.drain()
        except ConnectionError:
            pass  # it does not want the rest; its answer may still come
        except HttpError:
            self._writer.transport.abort()  # the client broke off: nobody must take this for the whole

    async def _receive(self) -> int:
        """Read and parse a piece, and tell its length.

        Raises:
            EOFError: There is no more.
            ConnectionError: The connection broke, or what came is not HTTP.
        """
        data = await self._reader.read(PIECE)
        if not data:
            raise EOFError
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserUpgrade as upgrade:
            self._behind = data[upgrade.args[0] :]
        except httptools.HttpParserError as error:
            raise ConnectionError(f"it is malformed: {error}") from None
        return len(data)

    async def _pieces(self, headers: Headers) -> AsyncIterator[bytes]:
        # Where nothing frames the body, its end is the end of the connection.
        framed = "content-length" in headers or "transfer-encoding" in dict(self._fields)
        try:
            while True:
                pieces, self._body = self._body, []
                for piece in pieces:
                    yield piece
                if self._complete:
                    return
                try:
                    await self._receive()
                except EOFError:
                    if framed:
                        raise EOFError("the sandbox's server cut its answer") from None
                    return
        finally:
            await self.close()

    async def _tunnel(self, client: ByteStream) -> None:
        await relay(client, self._reader, self._writer, self._box_ended, self._behind)

    def on_header(self, name: bytes, value: bytes) -> None:
        if not self._status:
            self._fields.append((name.decode("latin-1").lower(), value.decode("latin-1")))

    def on_headers_complete(self) -> None:
        status = self._parser.get_status_code()
        if status >= 200 or status == 101:
            self._status = status
            self._invited.set()
        else:
            if status == 100:
                self._invited.set()
            self._fields.clear()  # an interim answer, of no interest to who waits for the final one

    def on_body(self, chunk: bytes) -> None:
        self._body.append(chunk)

    def on_message_complete(self) -> None:
        self._complete = self._status != 0


def _head(request: Request, upgrade: str | None) -> bytes:
    target = request.target if request.target.startswith(("/", "*")) else _origin_form(request)
    first = f"{request.method} {target} HTTP/1.1\r\n".encode()
    lines = []
    for name, value in _end_to_end(request.headers.fields()):
        if name not in _PRIVATE and name != "content-length":
            if "\r" in value or "\n" in value:
                raise HttpError(400, f"the header {name} holds a line break")
            lines.append(f"{name}: {value}")
    if upgrade is None:
        lines.append("connection: close")
    else:
        lines += ["connection: upgrade", f"upgrade: {upgrade}"]
    if request.body.length is None:
        lines.append("transfer-encoding: chunked")
    elif request.body.length or "content-length" in request.headers:
        lines.append(f"content-length: {request.body.length}")
    return first + "\r\n".join([*lines, "", ""]).encode("latin-1")


def _origin_form(request: Request) -> str:
    query = request.target.partition("?")[2]
    return f"{request.raw_path}?{query}" if query else request.raw_path


def _end_to_end(fields: Iterable[tuple[str, str]]) -> list[tuple[str, str]]:
    """The fields that are about the message, not about one connection."""
    pairs = list(fields)
    named = {
        word.strip().lower() for name, value in pairs if name == "connection" for word in value.split(",")
    }
    return [(name, value) for name, value in pairs if name not in _HOP_BY_HOP and name not in named]


async def _nothing() -> AsyncIterator[bytes]:
    return
    yield b""
