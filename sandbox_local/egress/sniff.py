"""For whom a connection is, by its first bytes: the name in a TLS ClientHello or in the head of a request."""

from __future__ import annotations

import re

MOST_BYTES = 16 << 10
"""Within which a name must have come."""

_HANDSHAKE, _CLIENT_HELLO, _SERVER_NAME, _HOST_NAME = 22, 1, 0, 0
_NAME = re.compile(r"[a-z0-9_.-]{1,253}")


class NoName(Exception):
    """There is no name in it."""


def tls_name(data: bytes) -> str | None:
    """The server name in the first bytes of a TLS connection; None if more bytes are needed.

    Raises:
        NoName: It is not TLS, or does not name a server.
    """
    hello = b""
    place = 0
    while True:
        if place < len(data) and data[place] != _HANDSHAKE:
            raise NoName("it is not TLS")
        if len(data) < place + 5:
            return None
        length = int.from_bytes(data[place + 3 : place + 5], "big")
        hello += data[place + 5 : place + 5 + length]
        if hello and hello[0] != _CLIENT_HELLO:
            raise NoName("it is not a ClientHello")
        if len(hello) >= 4 and len(hello) >= 4 + int.from_bytes(hello[1:4], "big"):
            return _name(_hello_name(_Reader(hello[4 : 4 + int.from_bytes(hello[1:4], "big")])))
        place += 5 + length
        if place > len(data):
            return None


def http_host(data: bytes) -> str | None:
    """The host that an HTTP/1 request names, without its port; None if more bytes are needed.

    Raises:
        NoName: It is not HTTP/1, or does not name a host.
    """
    first, *lines = data.split(b"\n")
    if lines and not re.fullmatch(rb"[A-Z]+ \S+ HTTP/1\.[01]\r?", first):
        raise NoName("it is not HTTP/1")
    complete = lines[:-1]
    if not any(line in (b"", b"\r") for line in complete):
        return None
    head = complete[: next(place for place, line in enumerate(complete) if line in (b"", b"\r"))]
    hosts = [line.partition(b":")[2] for line in head if line.partition(b":")[0].lower() == b"host"]
    if len(hosts) != 1:
        raise NoName("it does not name one host")
    target = re.match(rb"[A-Z]+ https?://([^/?#\s]*)", first)
    if target and target[1].lower() != hosts[0].strip().lower():
        raise NoName("it names two hosts")
    return _name(re.sub(rb":\d*$", b"", hosts[0].strip()))


def _name(text: bytes) -> str:
    name = text.decode("latin-1").lower().rstrip(".")
    if not _NAME.fullmatch(name):
        raise NoName("it does not name a host")
    return name


def _hello_name(hello: _Reader) -> bytes:
    hello.take(2 + 32)  # version and random
    for width in (1, 2, 1):  # session, cipher suites, compression methods
        hello.vector(width)
    extensions = _Reader(hello.vector(2))
    while extensions.left:
        kind = int.from_bytes(extensions.take(2), "big")
        content = _Reader(extensions.vector(2))
        if kind == _SERVER_NAME:
            names = _Reader(content.vector(2))
            if names.take(1)[0] == _HOST_NAME:
                return names.vector(2)
    raise NoName("it does not name a server")


class _Reader:
    def __init__(self, data: bytes) -> None:
        self.left = data

    def take(self, length: int) -> bytes:
        if length > len(self.left):
            raise NoName("it is malformed")
        taken, self.left = self.left[:length], self.left[length:]
        return taken

    def vector(self, width: int) -> bytes:
        return self.take(int.from_bytes(self.take(width), "big"))
