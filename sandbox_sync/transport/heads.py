"""The heads of HTTP/1.1: how requests begin, and what the beginnings of answers say. Functions of bytes."""

from __future__ import annotations

import re
from collections.abc import Collection
from typing import NamedTuple

_VERSION = b"HTTP/1."
_LONGEST = 128 * 1024
_MOST_LINES = 101  # the status line and a hundred headers
_LONGEST_LENGTH = 18  # digits of a number of bytes

_NAME = r"[!#$%&'*+\-.^_`|~0-9A-Za-z]+"
_VALUE = r"[\t\x20-\x7e\x80-\xff]*"  # what Latin-1 has, save control characters
_end = re.compile(rb"\n\r?\n").search
_status = re.compile(rf"HTTP/1\.([0-9]) ([1-9][0-9]{{2}})(?: ({_VALUE}))?\r?").fullmatch
_field = re.compile(rf"({_NAME}):({_VALUE})\r?").fullmatch
_request = re.compile(rf"{_NAME} [!-~]+ HTTP/1\.1\r\n(?:{_NAME}: {_VALUE}\r\n)*\r\n").fullmatch


class AnswerError(Exception):
    """What has come is no answer of HTTP/1.1, or not all of one.

    Attributes:
        foreign: Whether it is something else altogether, as of a server that speaks another protocol.
    """

    def __init__(self, message: str, *, foreign: bool = False) -> None:
        super().__init__(message)
        self.foreign = foreign


class Head(NamedTuple):
    """The head of an answer.

    Attributes:
        status: HTTP status.
        reason: What the server calls it.
        headers: Names in lower case. Values of a header that is there more than once are joined by commas.
        chunked: Whether the content comes in chunks.
        length: Bytes of the content, if the head says how many there are.
        lasting: Whether the server keeps the connection open after the answer.
    """

    status: int
    reason: str
    headers: dict[str, str]
    chunked: bool
    length: int | None
    lasting: bool


def request_head(method: str, target: str, fields: Collection[tuple[str, str]]) -> bytes:
    """Write the head of a request.

    Args:
        method: HTTP method.
        target: Path and query, or what else is asked for.
        fields: Names and values of its headers.

    Raises:
        ValueError: HTTP allows no such target or header. It quotes none: they may be secret.
    """
    lines = "".join([f"{name}: {value}\r\n" for name, value in fields])
    text = f"{method} {target} HTTP/1.1\r\n{lines}\r\n"
    # No line may be more than was meant to be one, and no name end within itself.
    whole = text.count("\n") == len(fields) + 2 and ":" not in "".join([name for name, _ in fields])
    if not whole or _request(text) is None:
        raise ValueError("HTTP allows no such path or header")
    return text.encode("latin-1")


def end_of_head(data: bytes, seen: int = 0) -> int:
    """Where the head ends that these bytes begin with; 0 if it goes on.

    Args:
        data: All that has come of an answer.
        seen: How many of the bytes had been looked at before.

    Raises:
        AnswerError: This is no answer, or its head is too long.
    """
    if not data.startswith(_VERSION[: len(data)]):
        raise AnswerError("the server does not speak HTTP/1.1", foreign=True)
    found = _end(data, max(0, seen - 2))
    end = 0 if found is None else found.end()
    if (end or len(data)) > _LONGEST or data.count(b"\n", 0, end or len(data)) > _MOST_LINES + bool(end):
        raise AnswerError("the head of the answer is too long")
    return end


def read_head(data: bytes, method: str) -> Head:
    """Read the head of an answer.

    Args:
        data: The head, with the empty line at its end.
        method: That of the request.

    Raises:
        AnswerError: It is none, or contradicts itself.
    """
    lines = data.decode("latin-1").split("\n")
    first = _status(lines[0])
    if first is None:
        raise AnswerError("the answer does not begin as one of HTTP/1.1 does", foreign=True)
    minor, code, reason = first.groups()
    headers: dict[str, str] = {}
    for line in lines[1:-2]:
        field = _field(line)
        if field is None:
            raise AnswerError("the answer has a header that is none")
        name, value = field.groups()
        name, value = name.lower(), value.strip(" \t")
        headers[name] = f"{headers[name]}, {value}" if name in headers else value
    status = int(code)
    chunked, length = _framing(headers)
    if status < 200 or status in (204, 304) or method == "HEAD" or (method == "CONNECT" and status < 300):
        chunked, length = False, 0
    options = headers.get("connection", "").lower()
    lasting = "close" not in options and (minor != "0" or "keep-alive" in options)
    lasting = lasting and (chunked or length is not None) and status != 101  # which is another protocol's
    return Head(status, reason or "", headers, chunked, length, lasting)


def _framing(headers: dict[str, str]) -> tuple[bool, int | None]:
    """Whether content comes in chunks, and else how long it is, if that is said."""
    coding = headers.get("transfer-encoding")
    length = headers.get("content-length")
    if coding is not None:
        if coding.lower() != "chunked" or length is not None:
            raise AnswerError("the answer does not say in one way how long it is")
        return True, None
    if length is None:
        return False, None
    # Some servers and proxies say it twice.
    digits, *others = (part.strip(" \t") for part in length.split(","))
    if any(other != digits for other in others):
        raise AnswerError("the answer has several lengths")
    if not (digits.isascii() and digits.isdigit() and len(digits) <= _LONGEST_LENGTH):
        raise AnswerError("the length of the answer is no number")
    return False, int(digits)
