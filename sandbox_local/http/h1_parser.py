"""From the bytes of an HTTP/1.1 connection to requests."""

from __future__ import annotations

from collections.abc import Callable
from typing import NoReturn

import httptools

from sandbox_local.http.body import Body
from sandbox_local.http.errors import HttpError
from sandbox_local.http.limits import Limits
from sandbox_local.http.message import Headers, Request


class RequestParser:
    """Cuts bytes into requests; the methods `on_...` are what httptools calls.

    Attributes:
        in_head: Whether a head has begun and is not complete.
        body: Body of the request whose head was completed last; None in the head of the next.
        held: Bytes that follow a request which may become a tunnel, None if there is no such request.
    """

    def __init__(
        self, limits: Limits, begin: Callable[[], None], accept: Callable[[Request, bool], None]
    ) -> None:
        """Make a parser for one connection.

        Args:
            limits: The bounds of heads.
            begin: Called when a head begins; may raise HttpError to refuse it.
            accept: Called with a request when its head is complete, and with whether the client keeps the
                connection; may raise HttpError to refuse it.
        """
        self.in_head = False
        self.body: Body | None = None
        self.held: bytearray | None = None
        self._limits = limits
        self._begin = begin
        self._accept = accept
        self._parser = httptools.HttpRequestParser(self)
        self._target = bytearray()
        self._fields: list[tuple[str, str]] = []
        self._field_bytes = 0
        self._unframed = 0  # bytes since something came of them
        self._own_head = False  # what is parsed now is not the client's, see resume
        self._fault: HttpError | None = None

    def feed(self, data: memoryview) -> None:
        """Take bytes that arrived.

        Raises:
            HttpError: They are malformed or go beyond the limits; nothing can be made of what follows.
        """
        if self.held is not None:
            self.held += data
            return
        self._unframed += len(data)
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserUpgrade as upgrade:
            self.held = bytearray(data[upgrade.args[0] :])
            if self.body is not None and not self.body.complete:
                self.feed(self.resume())
        except httptools.HttpParserError as error:
            raise self._fault or HttpError(400, f"malformed request: {error}") from None
        if self._unframed > self._limits.header_bytes + self._limits.target_bytes:
            raise HttpError(431, f"more than {self._limits.header_bytes} bytes of header fields")

    def resume(self) -> memoryview:
        """No tunnel: what follows the request is HTTP after all. Gives what is to be fed again.

        httptools has given up on the connection, so a new parser goes on. If the request has a body, a head
        of our own tells the new parser how it is framed.
        """
        held, self.held = self.held or bytearray(), None
        self._parser = httptools.HttpRequestParser(self)
        if self.body is not None and not self.body.complete:
            length = self.body.length
            framing = "transfer-encoding: chunked" if length is None else f"content-length: {length}"
            self._own_head = True
            self._parser.feed_data(f"POST / HTTP/1.1\r\n{framing}\r\n\r\n".encode())
            self._own_head = False
        return memoryview(held)

    def skip_body(self) -> None:
        """The rest of the body was taken from the network past this parser; a request comes next."""
        assert self.body is not None
        self._parser = httptools.HttpRequestParser(self)
        self.body.end()

    def on_message_begin(self) -> None:
        if self._own_head:
            return
        self.in_head = True
        self.body = None
        self._unframed = self._field_bytes = 0
        self._target.clear()
        self._fields = []
        try:
            self._begin()
        except HttpError as error:
            self._fail(error)

    def on_url(self, piece: bytes) -> None:
        self._target += piece
        if len(self._target) > self._limits.target_bytes:
            self._fail(HttpError(414, f"the request target is longer than {self._limits.target_bytes} bytes"))

    def on_header(self, name: bytes, value: bytes) -> None:
        self._field_bytes += len(name) + len(value)
        if self._field_bytes > self._limits.header_bytes:
            self._fail(HttpError(431, f"more than {self._limits.header_bytes} bytes of header fields"))
        if not self.in_head:
            return  # a trailer, or a head of our own
        if len(self._fields) >= self._limits.header_fields:
            self._fail(HttpError(431, f"more than {self._limits.header_fields} header fields"))
        self._fields.append((name.decode("latin-1"), value.decode("latin-1")))

    def on_headers_complete(self) -> None:
        if self._own_head:
            return
        self.in_head = False
        self._unframed = 0
        try:
            request = self._request()
            self.body = request.body
            self._accept(request, self._parser.should_keep_alive())
        except HttpError as error:
            self.body = None
            self._fail(error)

    def on_body(self, chunk: bytes) -> None:
        self._unframed = 0
        assert self.body is not None
        self.body.feed(chunk)

    def on_message_complete(self) -> None:
        self._unframed = 0
        assert self.body is not None
        if not self._parser.should_upgrade() or self.body.length == 0:
            self.body.end()  # else httptools has taken the body for the bytes of a tunnel

    def _fail(self, error: HttpError) -> NoReturn:
        """Stop httptools from inside one of its callbacks."""
        self._fault = error
        raise error

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
        length = _announced_length(headers, version)
        if method == "CONNECT" and length != 0:
            raise HttpError(400, "CONNECT takes no body")
        if length != 0 or not self._parser.should_upgrade():
            headers.remove("upgrade")  # it can't lead to a tunnel, so no handler need look at it
        try:
            target = self._target.decode("utf-8")
        except UnicodeDecodeError:
            raise HttpError(400, "the request target is not valid UTF-8") from None
        authority = _authority(target)
        if authority is not None and authority != headers.get("host", "").lower():
            raise HttpError(400, "the request target names another host than the Host header field")
        return Request(method, target, headers, Body(length), version)


def _authority(target: str) -> str | None:
    """The host that an absolute target names; None of a path."""
    scheme, found, rest = target.partition("?")[0].partition("://")
    return rest.partition("/")[0].lower() if found and "/" not in scheme else None


def _announced_length(headers: Headers, version: str) -> int | None:
    """Length of the body in bytes, None if it comes in chunks.

    What two parsers could read in two ways is refused: that is how requests are smuggled.
    """
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
