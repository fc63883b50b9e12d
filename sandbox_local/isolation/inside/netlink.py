"""Messages to the kernel about the network of this namespace, without the programs `ip` and `nft`."""

from __future__ import annotations

import os
import socket
import struct
from collections.abc import Sequence
from typing import NamedTuple

_SECONDS = 5.0
"""Within which the kernel must have answered; it does at once."""

_REQUEST, _ACK, _CREATE, _APPEND = 1, 4, 0x400, 0x800
_ERROR = 2  # the type of an answer, of good news as well
_NESTED = 0x8000
_HEADER = struct.Struct("=IHHII")  # length, type, flags, sequence number, port

NETFILTER = 12
_BATCH_BEGIN, _BATCH_END = 16, 17
_NFTABLES = 10


class Request(NamedTuple):
    """One change.

    Attributes:
        kind: Its number in the protocol.
        body: The fixed part and the attributes.
        says: What it does, for an error.
    """

    kind: int
    body: bytes
    says: str


def attribute(kind: int, value: bytes) -> bytes:
    """One attribute, padded."""
    return struct.pack("=HH", len(value) + 4, kind) + value + bytes(-len(value) % 4)


def nested(kind: int, *attributes: bytes) -> bytes:
    """An attribute that consists of attributes."""
    return attribute(kind | _NESTED, b"".join(attributes))


def text(kind: int, value: str) -> bytes:
    """An attribute that is a name."""
    return attribute(kind, value.encode() + b"\0")


def number(kind: int, value: int) -> bytes:
    """An attribute that is a number, signed or not, in the byte order of nf_tables."""
    return attribute(kind, struct.pack("!I", value & 0xFFFFFFFF))


def change(requests: Sequence[Request]) -> None:
    """Change addresses and routes, one after the other.

    Raises:
        OSError: The kernel refused one.
    """
    _send(socket.NETLINK_ROUTE, list(requests), list(requests))


def filter_packets(requests: Sequence[Request]) -> None:
    """Make tables, chains and rules of nf_tables, all or none.

    Raises:
        OSError: The kernel refused one.
    """
    family = struct.pack("!BBH", socket.AF_INET, 0, 0)
    changes = [Request(_NFTABLES << 8 | kind, family + body, says) for kind, body, says in requests]
    ends = struct.pack("!BBH", socket.AF_UNSPEC, 0, _NFTABLES)
    begin = Request(_BATCH_BEGIN, ends, "a change of nf_tables")
    _send(NETFILTER, [begin, *changes, Request(_BATCH_END, ends, "")], changes)


def _send(protocol: int, messages: list[Request], answered: list[Request]) -> None:
    frame = b""
    for place, message in enumerate(messages):
        flags = _REQUEST | _ACK | _CREATE | _APPEND if message in answered else _REQUEST
        frame += _HEADER.pack(_HEADER.size + len(message.body), message.kind, flags, place, 0) + message.body
    with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, protocol) as sock:
        sock.settimeout(_SECONDS)
        sock.bind((0, 0))
        sock.sendall(frame)
        missing = len(answered)
        while missing:
            answer = sock.recv(1 << 16)
            while answer:
                length, kind, _, place, _ = _HEADER.unpack_from(answer)
                if kind == _ERROR:
                    (code,) = struct.unpack_from("=i", answer, _HEADER.size)
                    if code:
                        raise OSError(-code, f"{messages[place].says}: {os.strerror(-code)}")
                    missing -= 1
                answer = answer[(length + 3) & ~3 :]
