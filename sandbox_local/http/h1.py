"""HTTP/1.1 on one connection."""

from __future__ import annotations

import asyncio
import functools
import logging
from collections import deque
from dataclasses import dataclass
from http import HTTPStatus

import httptools

from sandbox_local.http.body import Body
from sandbox_local.http.errors import ClientGone, HttpError
from sandbox_local.http.exchange import CONNECTION_FIELDS, answer, dispose, outgoing_fields, pump
from sandbox_local.http.limits import Limits
from sandbox_local.http.link import Link
from sandbox_local.http.message import (
    ByteStream,
    FileSlice,
    Handler,
    Headers,
    Request,
    Response,
    Tunnel,
)

log = logging.getLogger(__name__)

_REASONS = {int(status): status.phrase for status in HTTPStatus}


@dataclass
class _Exchange:
    """A request and who answers it."""

    request: Request
    handler: Handler
    keep_alive: bool


class H1:
    """Parses requests, answers them one after the other in the order they came."""

    def __init__(self, link: Link, handler: Handler, limits: Limits) -> None:
        """Speak HTTP/1.1 on `link`."""
        self._link = link
        self._handler = handler
        self._limits = limits
        self._loop = asyncio.get_running_loop()
        self._waiting: deque[_Exchange] = deque()
        self._task: asyncio.Task[None] | None = None
        self._stopping = False
        self._deaf = False  # whatever else the client sends is swallowed
        self._over = False  # the last answer is sent
        self._tunnel: Body | None = None  # where the bytes go after an upgrade
        self._held: bytearray | None = None  # bytes behind a request that may become a tunnel
        # The message being parsed.
        self._parser = httptools.HttpRequestParser(self)
        self._target = bytearray()
        self._fields: list[tuple[str, str]] = []
        self._field_bytes = 0
        self._body: Body | None = None  # set once the head is complete
        self._in_head = False
        self._refed = False  # the head that the parser sees now is our own, see _read_on_as_http
        self._unframed = 0  # bytes since the parser last made progress that shows
        self._fault: HttpError | None = None
        self._arm()

    # What the link calls.

    def receive(self, data: memoryview) -> None:
        if self._deaf:
            return
        if self._tunnel is not None:
            self._tunnel.feed(bytes(data))
        elif self._held is not None:
            self._held += data
        else:
            self._parse(data)
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
        if self._in_head:
            self._refuse(
                HttpError(408, f"the request head took longer than {self._limits.header_seconds:g} s")
            )
        else:
            self._link.close()

    def stop(self) -> None:
        self._stopping = True
        if self._task is None:
            self._link.close()

    # Parsing.

    def _parse(self, data: memoryview) -> None:
        self._unframed += len(data)
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserUpgrade as upgrade:
            self._held = bytearray(data[upgrade.args[0] :])
            if self._body is not None and not self._body.complete:
                self._read_on_as_http(self._body)
        except httptools.HttpParserError as error:
            self._refuse(self._fault or HttpError(400, f"malformed request: {error}"))
        else:
            if self._unframed > self._limits.header_bytes + self._limits.target_bytes:
                self._refuse(HttpError(431, f"more than {self._limits.header_bytes} bytes of header fields"))

    def on_message_begin(self) -> None:
        if self._refed:
            return
        if len(self._waiting) >= self._limits.pipelined:
            self._fail(HttpError(503, f"more than {self._limits.pipelined} pipelined requests"))
        self._in_head = True
        self._unframed = self._field_bytes = 0
        self._target.clear()
        self._fields = []
        self._body = None
        self._arm()

    def on_url(self, piece: bytes) -> None:
        self._target += piece
        if len(self._target) > self._limits.target_bytes:
            self._fail(HttpError(414, f"the request target is longer than {self._limits.target_bytes} bytes"))

    def on_header(self, name: bytes, value: bytes) -> None:
        self._field_bytes += len(name) + len(value)
        if self._field_bytes > self._limits.header_bytes:
            self._fail(HttpError(431, f"more than {self._limits.header_bytes} bytes of header fields"))
        if not self._in_head:
            return  # a trailer, or a head of our own
        if len(self._fields) >= self._limits.header_fields:
            self._fail(HttpError(431, f"more than {self._limits.header_fields} header fields"))
        self._fields.append((name.decode("latin-1"), value.decode("latin-1")))

    def on_headers_complete(self) -> None:
        if self._refed:
            self._refed = False
            return
        self._in_head = False
        self._unframed = 0
        try:
            request = self._request()
        except HttpError as error:
            self._fail(error)
        self._body = request.body
        keep_alive = self._parser.should_keep_alive()
        self._enqueue(_Exchange(request, self._handler, keep_alive))

    def on_body(self, chunk: bytes) -> None:
        self._unframed = 0
        assert self._body is not None
        self._body.feed(chunk)

    def on_message_complete(self) -> None:
        self._unframed = 0
        assert self._body is not None
        if not self._parser.should_upgrade() or self._body.length == 0:
            self._body.end()

    def _request(self) -> Request:
        """Check the head that was just parsed."""
        version = self._parser.get_http_version()
        if version not in ("1.0", "1.1"):
            raise HttpError(505, f"HTTP/{version} is not spoken here")
        method = self._parser.get_method().decode("ascii")
        headers = Headers(self._fields)
        hosts = len(headers.get_all("host"))
        if hosts > 1 or (hosts == 0 and version == "1.1"):
            raise HttpError(400, "exactly one Host header field is required")
        body = Body(
            _announced_length(headers, version), on_taken=self._on_taken, on_wanted=self._expectation(headers)
        )
        try:
            target = self._target.decode("utf-8")
        except UnicodeDecodeError:
            raise HttpError(400, "the request target is not valid UTF-8") from None
        if method == "CONNECT" and body.length != 0:
            raise HttpError(400, "CONNECT takes no body")
        return Request(method, target, headers, body, version, self._link.peer)

    def _expectation(self, headers: Headers) -> functools.partial[None] | None:
        expect = headers.get("expect")
        if expect is None:
            return None
        if expect.lower() != "100-continue":
            raise HttpError(417, f"no such expectation: {expect}")
        return functools.partial(self._link.write, b"HTTP/1.1 100 Continue\r\n\r\n")

    def _fail(self, error: HttpError) -> None:
        """Stop the parser from inside one of its callbacks."""
        self._fault = error
        raise error

    def _refuse(self, error: HttpError) -> None:
        """The client broke the protocol: what came before is answered, then this, then nothing more."""
        self._deaf = True
        self._in_head = False
        if self._body is not None and not self._body.complete:
            self._body.fail(error)
            return
        body = Body(0)
        body.end()

        async def refusal(_: Request) -> Response:
            raise error

        self._enqueue(_Exchange(Request("GET", "/", Headers(), body), refusal, keep_alive=False))

    def _read_on_as_http(self, body: Body | None = None) -> None:
        """No tunnel: what follows the head of an upgrade request is HTTP after all.

        The parser has given up on it, so a new one goes on; a head of our own tells it of the body's framing.
        """
        held, self._held = self._held, None
        self._parser = httptools.HttpRequestParser(self)
        if body is not None:
            framing = (
                "transfer-encoding: chunked" if body.length is None else f"content-length: {body.length}"
            )
            self._refed = True
            self._parse(memoryview(f"POST / HTTP/1.1\r\n{framing}\r\n\r\n".encode()))
        if held:
            self._parse(memoryview(held))

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
                if self._held is not None:
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
        elif self._held is not None:
            self._read_on_as_http()

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
        incoming = self._tunnel = Body(on_taken=self._on_taken)
        if self._held:
            incoming.feed(bytes(self._held))
        self._held = None
        self._regulate()

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

    def _on_taken(self, size: int) -> None:
        self._regulate()

    def _regulate(self) -> None:
        """Read from the network only what there is room for."""
        body = self._tunnel or self._body
        full = body is not None and body.buffered >= self._limits.body_buffer
        if (full or self._waiting or self._held) and not self._deaf:
            self._link.pause_reading()
        else:
            self._link.resume_reading()

    def _arm(self) -> None:
        """Set the deadline that fits what the connection is waiting for."""
        if self._task is not None:
            self._link.deadline = None
        elif self._in_head:
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


def _announced_length(headers: Headers, version: str) -> int | None:
    """Length of the body in bytes, None if it comes in chunks. Whatever two parsers could read in two ways is
    refused: that is how requests are smuggled."""
    codings, lengths = headers.get_all("transfer-encoding"), headers.get_all("content-length")
    if codings:
        if lengths or version != "1.1":
            raise HttpError(400, "Transfer-Encoding does not go with Content-Length or HTTP/1.0")
        if [coding.lower() for coding in codings] != ["chunked"]:
            raise HttpError(501, "no transfer coding but chunked is known here")
        return None
    if len(lengths) > 1:
        raise HttpError(400, "more than one Content-Length")
    return int(lengths[0]) if lengths else 0


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
