"""HTTP/1.1 on one connection."""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from http import HTTPStatus

from sandbox_local.http.body import Body
from sandbox_local.http.errors import ClientGone, HttpError
from sandbox_local.http.exchange import answer, dispose, outgoing_fields, pump
from sandbox_local.http.h1_parser import RequestParser
from sandbox_local.http.limits import Limits
from sandbox_local.http.link import Link
from sandbox_local.http.message import ByteStream, FileSlice, Handler, Headers, Request, Response, Tunnel
from sandbox_local.threads import run_to_end, write_all

log = logging.getLogger(__name__)

_REASONS = {int(status): status.phrase.encode() for status in HTTPStatus}
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
        self._saving = False  # the bytes go past the parser, to a file
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

    @property
    def half_open(self) -> bool:
        return self._tunnel is not None

    def ended(self) -> None:
        if self._tunnel is not None:
            self._tunnel.end()

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
            self._link.abort()

    def stop(self) -> None:
        self._stopping = True
        if self._task is None:
            self._link.close()

    def running(self) -> list[asyncio.Task[None]]:
        return [] if self._task is None else [self._task]

    # What the parser calls.

    def _begin(self) -> None:
        if len(self._waiting) >= self._limits.pipelined:
            raise HttpError(503, f"more than {self._limits.pipelined} pipelined requests")
        self._arm()

    def _accept(self, request: Request, keep_alive: bool) -> None:
        request.peer = self._link.peer
        request.body.on_taken = lambda _: self._regulate()
        if request.body.length:
            request.body.on_save = lambda fd: self._save(request.body, fd)
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
                # A file that gets shorter while it is sent is whoever writes it to blame for.
                trace = None if isinstance(error, EOFError) else error
                log.error("connection of %s dropped: %s", self._link.peer, error, exc_info=trace)
            self._link.abort()
        elif not self._over:
            self._next()
            self._regulate()

    async def _serve(self, exchange: _Exchange) -> None:
        request = exchange.request
        response = await answer(exchange.handler, request)
        try:
            if isinstance(response.body, Tunnel):
                if self._may_tunnel():
                    await self._open_tunnel(response, response.body)
                    return
                log.error("a tunnel for %s, which asked for none", request.raw_path)
                response = Response.error(HttpError(500, "internal error"))
            await self._respond(exchange, response)
        finally:
            await dispose(response)
        request.body.discard()
        if self._stopping or not exchange.keep_alive:
            self._hang_up(clean=request.body.complete and not self._waiting and not self._deaf)
        elif self._may_tunnel():
            self.receive(self._parser.resume())

    def _may_tunnel(self) -> bool:
        """Whether the request being answered may become a tunnel: none can come behind one that may."""
        return self._parser.held is not None and not self._waiting

    async def _respond(self, exchange: _Exchange, response: Response) -> None:
        link, body, headers, request = self._link, response.body, response.headers, exchange.request
        bodyless = request.method == "HEAD" or response.status in (204, 304)
        if isinstance(body, bytes) and response.status not in (204, 304):
            headers.set("content-length", str(len(body)))
        elif isinstance(body, FileSlice):
            headers.set("content-length", str(body.length))
        if bodyless:
            link.write(self._head(exchange, response))
        elif isinstance(body, bytes):
            link.write(self._head(exchange, response), body)
        elif isinstance(body, FileSlice):
            link.write(self._head(exchange, response))
            await link.send_file(body)
        elif not isinstance(body, Tunnel):
            sink = _BodySink(link, request, response, lambda: self._head(exchange, response))
            request.body.on_complete = sink.send_head
            sink.end(await pump(body, sink), response.trailers)
        await link.drain()

    def _head(self, exchange: _Exchange, response: Response) -> bytes:
        """Status line and header fields. Here it is settled whether the connection is kept: not if the client
        may still be sending its body.
        """
        chunked = _is_chunked(exchange.request, response)
        delimited = chunked or "content-length" in response.headers or response.status in (204, 304)
        exchange.keep_alive &= delimited and exchange.request.body.complete and not self._stopping
        fields = outgoing_fields(response.headers)
        if chunked:
            fields.append((b"transfer-encoding", b"chunked"))
        if not exchange.keep_alive:
            fields.append((b"connection", b"close"))
        elif exchange.request.version == "1.0":
            fields.append((b"connection", b"keep-alive"))
        return _written(response.status, fields)

    async def _open_tunnel(self, response: Response, tunnel: Tunnel) -> None:
        fields = outgoing_fields(response.headers, managed=frozenset())
        self._link.write(_written(response.status, fields))
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
            patience = self._limits.idle_seconds  # until the client has read what is unsent
        else:
            self._link.finish()
            self._link.resume_reading()
            patience = self._limits.linger_seconds
        self._link.deadline = self._loop.time() + patience

    # Flow.

    def _regulate(self) -> None:
        """Read from the network only what there is room for."""
        body = self._tunnel or self._parser.body
        full = body is not None and body.buffered >= self._limits.body_buffer
        if (full or self._saving or self._waiting or self._parser.held) and not self._deaf:
            self._link.pause_reading()
        else:
            self._link.resume_reading()

    async def _save(self, body: Body, fd: int) -> None:
        """Move the rest of a body to a file, past the parser. Should that fail, no more is read: nobody knows
        any longer where the next request begins.
        """
        if self._parser.held is not None:
            return  # the bytes are with the parser already
        assert body.length is not None
        self._saving = True
        self._regulate()
        await run_to_end(write_all, fd, *body.take())
        await self._link.receive_file(fd, body.length - body.received)
        self._parser.skip_body()
        self._saving = False
        self._regulate()

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

    def __init__(self, link: Link, request: Request, response: Response, head: Callable[[], bytes]) -> None:
        self._link = link
        self._request = request
        self._head: Callable[[], bytes] | None = head
        self._chunked = _is_chunked(request, response)
        length = response.headers.get("content-length")
        self._left = None if length is None else int(length)

    def send(self, pieces: list[bytes]) -> None:
        if pieces or self._request.body.complete:
            self._write(self._framed(pieces))

    def send_head(self) -> None:
        """Send the head, if that was put off.

        While there is nothing but the head to send, it waits for the end of the request: then it is known
        that the connection can be kept.
        """
        self._write(self._framed([]))

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
            framed.append(b"0\r\n%b\r\n" % _lines(outgoing_fields(trailers or Headers(), date=False)))
        self._write(framed)

    def _framed(self, pieces: list[bytes]) -> list[bytes]:
        framed = []
        if self._head is not None:
            framed.append(self._head())
            self._head = None
        size = sum(map(len, pieces))
        if self._left is not None:
            self._left -= size
            if self._left < 0:
                return []
        if self._chunked and size:
            return [*framed, b"%x\r\n" % size, *pieces, b"\r\n"]
        return [*framed, *pieces]

    def _write(self, framed: list[bytes]) -> None:
        if framed:
            self._link.write(*framed)


def _is_chunked(request: Request, response: Response) -> bool:
    return (
        not isinstance(response.body, (bytes, FileSlice, Tunnel))
        and "content-length" not in response.headers
        and response.status not in (204, 304)
        and request.version == "1.1"
    )


def _written(status: int, fields: list[tuple[bytes, bytes]]) -> bytes:
    return b"HTTP/1.1 %d %b\r\n%b\r\n" % (status, _REASONS.get(status, b""), _lines(fields))


def _lines(fields: list[tuple[bytes, bytes]]) -> bytes:
    return b"".join(b"%b: %b\r\n" % field for field in fields)
