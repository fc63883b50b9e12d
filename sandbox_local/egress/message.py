"""Messages of DNS (RFC 1035), as far as they have to be understood to be passed on."""

from __future__ import annotations

import struct
from ipaddress import IPv4Address
from typing import NamedTuple

A = 1
AAAA = 28
SVCB = 64
HTTPS = 65
IXFR = 251
AXFR = 252

REFUSED = 5
SERVER_FAILED = 2

_HEADER = struct.Struct("!HHHHHH")
_IN = 1
_RESPONSE = 0x8000
_OPCODE = 0x7800
_RECURSE = 0x0100
_RECURSION_AVAILABLE = 0x0080


class Malformed(ValueError):
    """What came is no such message."""


class Question(NamedTuple):
    """What a message asks for.

    Attributes:
        name: In lower case, without the last dot.
        kind: The type of the records.
        text: The question as it stands in the message.
    """

    name: str
    kind: int
    text: bytes


def question(message: bytes) -> Question:
    """The one question of a message.

    Raises:
        Malformed: There is none, or more, or it is something else.
    """
    try:
        _, flags, count, *_ = _HEADER.unpack_from(message)
        if count != 1 or flags & _OPCODE:
            raise Malformed("it is not one question")
        labels, place = [], _HEADER.size
        while length := message[place]:
            if length > 63:
                raise Malformed("its name is compressed")
            labels.append(message[place + 1 : place + 1 + length])
            place += 1 + length
        kind, _ = struct.unpack_from("!HH", message, place + 1)
    except (struct.error, IndexError):
        raise Malformed("it is cut short") from None
    name = b".".join(labels).decode("latin-1").lower()
    if len(name) > 253:
        raise Malformed("its name is too long")
    return Question(name, kind, message[_HEADER.size : place + 5])


def ask(number: int, name: str, kind: int) -> bytes:
    """A question.

    Raises:
        UnicodeError: That can't be a name.
    """
    labels = b"".join(bytes([len(label)]) + label for label in name.encode("ascii").split(b"."))
    return _HEADER.pack(number, _RECURSE, 1, 0, 0, 0) + labels + struct.pack("!BHH", 0, kind, _IN)


def reply(asked: bytes, code: int = 0) -> bytes:
    """An answer without records to a message with one question."""
    number, flags = struct.unpack_from("!HH", asked)
    flags = _RESPONSE | _RECURSION_AVAILABLE | flags & _RECURSE | code
    return _HEADER.pack(number, flags, 1, 0, 0, 0) + question(asked).text


def numbered(message: bytes, number: int) -> bytes:
    """The same message under another number."""
    return struct.pack("!H", number) + message[2:]


def number_of(message: bytes) -> int:
    """The number of a message."""
    return int.from_bytes(message[:2], "big")


def answers(asked: bytes, message: bytes) -> bool:
    """Whether a message is the answer to another one."""
    try:
        _, flags = struct.unpack_from("!HH", message)
        same = number_of(message) == number_of(asked)
        return bool(same and flags & _RESPONSE and _same(question(message), question(asked)))
    except (struct.error, Malformed):
        return False


def addresses(message: bytes) -> list[IPv4Address]:
    """The IPv4 addresses in an answer.

    Raises:
        Malformed: It can't be understood.
    """
    found = []
    try:
        *_, count, _, _ = _HEADER.unpack_from(message)
        place = _HEADER.size + len(question(message).text)
        for _ in range(count):
            place = _after_name(message, place)
            kind, category, _, length = struct.unpack_from("!HHIH", message, place)
            place += 10 + length
            if (kind, category, length) == (A, _IN, 4) and place <= len(message):
                found.append(IPv4Address(message[place - 4 : place]))
    except (struct.error, IndexError):
        raise Malformed("it is cut short") from None
    return found


def _same(one: Question, other: Question) -> bool:
    return (one.name, one.kind, one.text[-2:]) == (other.name, other.kind, other.text[-2:])


def _after_name(message: bytes, place: int) -> int:
    while length := message[place]:
        if length >= 0xC0:
            return place + 2
        place += 1 + length
    return place + 1
