"""HTTP/1.1 on one connection."""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from dataclasses import dataclass
from http import HTTPStatus

from sandbox_local.http.body import Body
from sandbox_local.http.errors import ClientGone, HttpError
from sandbox_local.http.exchange import CONNECTION_FIELDS, answer, dispose, outgoing_fields, pump
from sandbox_local.http.h1_parser import RequestParser
from sandbox_local.http.limits import Limits
from sandbox_local.http.link import Link
from sandbox_local.http.message import ByteStream, FileSlice, Handler, Headers, Request, Response, Tunnel

log = logging.getLogger(__name__)

_REASONS = {int(status): status.phrase for status in HTTPStatus}
_CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"


@dataclass
class _Exchange:
    """A request and who answers it."""

    request: Request
    handler: Handler
    keep_alive: bool


class H1:
    """Answers the requests of a connection one after the other, in the order they came."""

    def __init__(self, link: Link, handler: Handler, limits: Limits) -> None:
        """Speak HTTP/1.1 on `link`."""
        self._link = link
        self._handler = handler
        self._limits = limits
        self._loop = asyncio.get_running_loop()
        self._parser = RequestParser(limits, self._begin, self._accept)
        self._waiting: deque[_Exchange] = deque()
        self._task: asyncio.Task[None] | None = None
        self._tunnel: Body | None = None  # where the bytes go after an upgrade
        self._stopping = False  # the answer being made is the last
        self._deaf = False  # whatever else the client sends is swallowed
        self._over = False  # the last answer is sent
        self._arm()

    # What the link calls.

    def receive(self, data: memoryview) -> None:
        if self._deaf:
            return
        if self._tunnel is not None:
            self._tunnel.feed(bytes(data))
        else:
            try:
                self._parser.feed(data)
            except HttpError as error:
                self._refuse(error)
        self._regulate()

    def ended(self) -> bool:
        if self._tunnel is not None:
            self._tunnel.end()
            return True
        return False

    def lost(self) -> None:
        self._deaf = self._over = True
        self._waiting.clear()
        if self._task is not None:
            self._task.cancel()

    def expired(self) -> None:
        if self._parser.in_head and not self._deaf:
            self._refuse(
                HttpError(408, f"the request head took longer than {self._limits.header_seconds:g} s")
            )
        else:
            self._link.close()

    def stop(self) -> None:
        self._stopping = True
        if self._task is None:
            self._link.close()

    # What the parser calls.

    def _begin(self) -> None:
        if len(self._waiting) >= self._limits.pipelined:
            raise HttpError(503, f"more than {self._limits.pipelined} pipelined requests")
        self._arm()

    def _accept(self, request: Request, keep_alive: bool) -> None:
        request.peer = self._link.peer
        request.body.on_taken = lambda _: self._regulate()
        expect = request.headers.get("expect")
        if expect is not None:
            if expect.lower() != "100-continue":
                raise HttpError(417, f"no such expectation: {expect}")
            request.body.on_wanted = lambda: self._link.write(_CONTINUE)
        self._enqueue(_Exchange(request, self._handler, keep_alive))

    def _refuse(self, error: HttpError) -> None:
        """The client broke the protocol: what came before is answered, then this, then nothing more."""
        self._deaf = True
        body = self._parser.body
        if body is not None and not body.complete:
            body.fail(error)
            return

        async def refusal(_: Request) -> Response:
            raise error

        nothing = Body(0)
        nothing.end()
        self._enqueue(_Exchange(Request("GET", "/", Headers(), nothing), refusal, keep_alive=False))

    # Answering.

    def _enqueue(self, exchange: _Exchange) -> None:
        self._waiting.append(exchange)
        if self._task is None:
            self._next()

    def _next(self) -> None:
        if self._waiting:
            exchange = self._waiting.popleft()
            self._task = self._loop.create_task(self._serve(exchange))
            self._task.add_done_callback(self._served)
        self._arm()

    def _served(self, task: asyncio.Task[None]) -> None:
        self._task = None
        if task.cancelled():
            self._link.abort()
        elif (error := task.exception()) is not None:
            if not isinstance(error, ClientGone):
                log.error("connection of %s dropped", self._link.peer, exc_info=error)
            self._link.abort()
        elif not self._over:
            self._next()
            self._regulate()

    async def _serve(self, exchange: _Exchange) -> None:
        request = exchange.request
        response = await answer(exchange.handler, request)
        try:
            if isinstance(response.body, Tunnel):
                if self._parser.held is not None:
                    await self._open_tunnel(response, response.body)
                    return
                log.error("a tunnel for %s, which asked for none", request.raw_path)
                response = Response.error(HttpError(500, "internal error"))
            keep = exchange.keep_alive and request.body.complete and not self._stopping
            keep = await self._respond(request, response, keep)
        finally:
            await dispose(response)
        request.body.discard()
        if not keep:
            self._hang_up(clean=request.body.complete and not self._waiting and not self._deaf)
        elif self._parser.held is not None:
            self.receive(self._parser.resume())

    async def _respond(self, request: Request, response: Response, keep: bool) -> bool:
        """Send an answer; returns whether another may follow on this connection."""
        link, body, headers = self._link, response.body, response.headers
        bodyless = request.method == "HEAD" or response.status in (204, 304)
        chunked = False
        if response.status == 204:
            pass
        elif isinstance(body, bytes):
            if response.status != 304:
                headers.set("content-length", str(len(body)))
        elif isinstance(body, FileSlice):
            headers.set("content-length", str(body.length))
        elif "content-length" not in headers:
            chunked = request.version == "1.1"
            keep = keep and chunked
        head = _head(response, chunked=chunked, keep_alive=keep, version=request.version)
        if bodyless:
            link.write(head)
        elif isinstance(body, bytes):
            link.write(head, body)
        elif isinstance(body, FileSlice):
            link.write(head)
            await link.send_file(body)
        elif not isinstance(body, Tunnel):
            sink = _BodySink(link, head, chunked, headers.get("content-length"))
            sink.end(await pump(body, sink), response.trailers)
        await link.drain()
        return keep

    async def _open_tunnel(self, response: Response, tunnel: Tunnel) -> None:
        self._link.write(_head(response, chunked=False, keep_alive=None, version="1.1"))
        incoming = self._tunnel = Body()
        incoming.on_taken = lambda _: self._regulate()
        self.receive(self._parser.resume())

        async def write(data: bytes) -> None:
            self._link.write(data)
            await self._link.drain()

        async def end() -> None:
            self._link.finish()

        await tunnel.run(ByteStream(incoming, write, end))
        self._hang_up(clean=True)

    def _hang_up(self, *, clean: bool) -> None:
        """Close. If the client may still be sending, listen for a while first: closing at once would reset
        the connection, and the reset could overtake the answer.
        """
        self._deaf = self._over = True
        self._waiting.clear()
        if clean:
            self._link.close()
        else:
            self._link.finish()
            self._link.resume_reading()
            self._link.deadline = self._loop.time() + self._limits.linger_seconds

    # Flow.

    def _regulate(self) -> None:
        """Read from the network only what there is room for."""
        body = self._tunnel or self._parser.body
        full = body is not None and body.buffered >= self._limits.body_buffer
        if (full or self._waiting or self._parser.held) and not self._deaf:
            self._link.pause_reading()
        else:
            self._link.resume_reading()

    def _arm(self) -> None:
        """Set the deadline that fits what the connection is waiting for."""
        if self._task is not None:
            self._link.deadline = None
        elif self._parser.in_head:
            self._link.deadline = self._loop.time() + self._limits.header_seconds
        else:
            self._link.deadline = self._loop.time() + self._limits.idle_seconds


class _BodySink:
    """Frames the pieces of a body and counts them."""

    def __init__(self, link: Link, head: bytes, chunked: bool, length: str | None) -> None:
        self._link = link
        self._head = head
        self._chunked = chunked
        self._left = None if length is None else int(length)

    def send(self, pieces: list[bytes]) -> None:
        framed = self._framed(pieces)
        if framed:
            self._link.write(*framed)

    async def drain(self) -> None:
        if self._left is not None and self._left < 0:
            raise ValueError("the body of a response is longer than its announced length")
        await self._link.drain()

    def end(self, pieces: list[bytes], trailers: Headers | None) -> None:
        """Send the last pieces and close the body."""
        framed = self._framed(pieces)
        if self._left:
            raise ValueError("the body of a response is not as long as announced")
        if self._chunked:
            lines = (b"%b: %b\r\n" % field for field in outgoing_fields(trailers or Headers(), date=False))
            framed.append(b"0\r\n%b\r\n" % b"".join(lines))
        if framed:
            self._link.write(*framed)

    def _framed(self, pieces: list[bytes]) -> list[bytes]:
        head, self._head = self._head, b""
        framed = [head] if head else []
        size = sum(map(len, pieces))
        if not size:
            return framed
        if self._left is not None:
            self._left -= size
            if self._left < 0:
                return []
        if self._chunked:
            return [*framed, b"%x\r\n" % size, *pieces, b"\r\n"]
        return [*framed, *pieces]


def _head(response: Response, *, chunked: bool, keep_alive: bool | None, version: str) -> bytes:
    """Status line and header fields; `keep_alive` None leaves connection management to the response."""
    lines = [f"HTTP/1.1 {response.status} {_REASONS.get(response.status, '')}\r\n".encode("ascii")]
    managed = CONNECTION_FIELDS if keep_alive is not None else frozenset()
    lines.extend(b"%b: %b\r\n" % field for field in outgoing_fields(response.headers, managed=managed))
    if chunked:
        lines.append(b"transfer-encoding: chunked\r\n")
    if keep_alive is False:
        lines.append(b"connection: close\r\n")
    elif keep_alive and version == "1.0":
        lines.append(b"connection: keep-alive\r\n")
    lines.append(b"\r\n")
    return b"".join(lines)
