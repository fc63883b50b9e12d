"""Requests and responses, the same for HTTP/1.1 and HTTP/2."""

from __future__ import annotations

import json
import os
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any
from urllib.parse import parse_qsl, unquote

from sandbox_local.http.body import Body
from sandbox_local.http.errors import HttpError

_QUERY_PAIRS = 1000


class Headers(Mapping[str, str]):
    """Header fields: names in any case, several values to a name, order kept.

    As a mapping it shows lower-case names and the first value of each. Its `repr` shows no values: some are
    secrets.
    """

    __slots__ = ("_values",)

    def __init__(self, fields: Mapping[str, str] | Iterable[tuple[str, str]] = ()) -> None:
        """Make header fields from a mapping or from pairs of name and value."""
        self._values: dict[str, list[str]] = {}
        if isinstance(fields, Headers):
            fields = fields.fields()
        elif isinstance(fields, Mapping):
            fields = fields.items()
        for name, value in fields:
            self.add(name, value)

    def __getitem__(self, name: str) -> str:
        return self._values[name.lower()][0]

    def __iter__(self) -> Iterator[str]:
        return iter(self._values)

    def __len__(self) -> int:
        return len(self._values)

    def __contains__(self, name: object) -> bool:
        return isinstance(name, str) and name.lower() in self._values

    def __repr__(self) -> str:
        return f"Headers({', '.join(self._values)})"

    def get_all(self, name: str) -> list[str]:
        """Every value of `name`, in order; empty if there is none."""
        return list(self._values.get(name.lower(), ()))

    def fields(self) -> Iterator[tuple[str, str]]:
        """Every field as a pair of lower-case name and value."""
        for name, values in self._values.items():
            for value in values:
                yield name, value

    def add(self, name: str, value: str) -> None:
        """Append a field, beside those of the same name."""
        self._values.setdefault(name.lower(), []).append(value)

    def remove(self, name: str) -> None:
        """Drop every field of this name, if there are any."""
        self._values.pop(name.lower(), None)

    def set(self, name: str, value: str) -> None:
        """Make this the only field of its name."""
        self._values[name.lower()] = [value]


@dataclass(eq=False)
class Request:
    """One request.

    Attributes:
        method: In upper case, for example "POST".
        target: The request target as it came, for example "/files?path=a%20b"; for CONNECT "host:port".
        headers: Header fields. With HTTP/2 `host` holds the authority; `upgrade` is there only if the answer
            may be a tunnel.
        body: The body as it arrives.
        version: "1.0", "1.1" or "2".
        peer: Address of the client in words, for logs.
        scheme: Always "http": the server speaks no TLS.
    """

    method: str
    target: str = field(repr=False)  # may be a signed URL
    headers: Headers
    body: Body
    version: str = "1.1"
    peer: str = ""
    scheme: str = "http"

    @property
    def host(self) -> str:
        """The host asked for, with its port if one was given; empty if unknown."""
        return self.headers.get("host", "")

    @cached_property
    def raw_path(self) -> str:
        """The path as it came, still percent-encoded."""
        target = self.target.partition("?")[0]
        if target.startswith("/") or "://" not in target:
            return target
        return "/" + target.partition("://")[2].partition("/")[2]

    @cached_property
    def path(self) -> str:
        """The path, percent-decoded.

        Raises:
            HttpError: It is not UTF-8 (400).
        """
        try:
            return unquote(self.raw_path, errors="strict")
        except UnicodeDecodeError:
            raise HttpError(400, "the path is not valid UTF-8") from None

    @cached_property
    def query(self) -> list[tuple[str, str]]:
        """The pairs of the query string in order, decoded; "+" and "%20" both mean a space.

        Raises:
            HttpError: It is not UTF-8, or has too many pairs (400).
        """
        try:
            return parse_qsl(
                self.target.partition("?")[2],
                keep_blank_values=True,
                errors="strict",
                max_num_fields=_QUERY_PAIRS,
            )
        except ValueError:
            raise HttpError(400, "the query string is not valid UTF-8 or has too many parameters") from None

    def parameter(self, name: str) -> str | None:
        """The first value of a query parameter, or None.

        Raises:
            HttpError: The query string is malformed (400).
        """
        return next((value for key, value in self.query if key == name), None)

    async def json(self, limit: int) -> Any:
        """Read the body as JSON.

        Args:
            limit: The most bytes to accept.

        Raises:
            BodyTooLarge: The body is longer than `limit` (413).
            HttpError: The body is not JSON (400).
        """
        text = await self.body.read(limit)
        try:
            return json.loads(text)
        except (ValueError, RecursionError):
            raise HttpError(400, "the request body is not valid JSON") from None


@dataclass(eq=False)
class FileSlice:
    """A part of a file as the body of a response: sent by the kernel, and closed afterwards whatever happens.

    Attributes:
        fd: Descriptor of a regular file; it belongs to the response from here on.
        offset: Of the first byte to send.
        length: Number of bytes to send.
    """

    fd: int
    offset: int
    length: int
    closed: bool = field(default=False, init=False, repr=False)

    def close(self) -> None:
        """Close the descriptor; again is harmless."""
        if not self.closed:
            self.closed = True
            os.close(self.fd)


@dataclass(frozen=True)
class ByteStream:
    """The two directions of a tunnel.

    Attributes:
        incoming: What the client sends; it ends when the client closes its side.
        write: Sends bytes to the client; waits while the client does not read. Raises ClientGone.
        end: Tells the client that no more bytes will come.
    """

    incoming: Body
    write: Callable[[bytes], Awaitable[None]]
    end: Callable[[], Awaitable[None]]


@dataclass(frozen=True)
class Tunnel:
    """Turns the connection into a stream of bytes: the body of a 101 to an Upgrade, or of a 200 to a CONNECT.

    Attributes:
        run: Called once the head is sent; when it returns, the connection is closed. It is cancelled when the
            client resets the connection.
    """

    run: Callable[[ByteStream], Awaitable[None]]


class Response:
    """An answer."""

    __slots__ = ("body", "headers", "status", "trailers")

    def __init__(
        self,
        status: int = 200,
        headers: Mapping[str, str] | Iterable[tuple[str, str]] = (),
        body: bytes | AsyncIterator[bytes] | FileSlice | Tunnel = b"",
        *,
        trailers: Headers | None = None,
    ) -> None:
        """Make an answer.

        Args:
            status: HTTP status.
            headers: Header fields. Length, framing, date and connection management are the engine's.
            body: The whole body; or an iterator over its pieces, which are joined while it has more at once,
                sent as soon as it has to wait, and closed (`aclose`) if the client goes away; or a part of a
                file; or a tunnel.
            trailers: Fields sent after the body; they may be filled in until the body ends.
        """
        self.status = status
        self.headers = Headers(headers)
        self.body = body
        self.trailers = trailers

    def __repr__(self) -> str:
        return f"Response({self.status}, {self.headers!r}, {type(self.body).__name__})"

    @classmethod
    def json(
        cls, status: int, value: object, headers: Mapping[str, str] | Iterable[tuple[str, str]] = ()
    ) -> Response:
        """An answer whose body is `value` as JSON."""
        text = json.dumps(value, separators=(",", ":")).encode()
        response = cls(status, headers, text)
        response.headers.set("content-type", "application/json")
        return response

    @classmethod
    def error(cls, error: HttpError) -> Response:
        """The answer that stands for an error."""
        return cls.json(
            error.status, {"code": error.status, "message": error.message, **error.fields}, error.headers
        )


Handler = Callable[[Request], Awaitable[Response]]
