"""Multipart bodies, read as they arrive: no part is ever held in memory."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator, Callable
from typing import NamedTuple
from urllib.parse import unquote

_MAX_HEADER = 16 << 10  # bytes of the header fields of one part
_MAX_BOUNDARY = 200
_LARGE = 16 << 10  # bytes of a piece that is worth more than one look
_PARAMETER = re.compile(r';\s*([^\s=;]+)\s*=\s*(?:"((?:[^"\\]|\\.)*)"|([^;"]*))', re.DOTALL)
_QUOTED_PAIR = re.compile(r'\\([()<>@,;:\\"/\[\]?=])')
_AFTER_DELIMITER = (b"-", b"\r", b" ", b"\t")  # otherwise it is only the beginning of a longer line
_ESCAPED = re.compile(r"%(22|0[0-9A-F]|1[0-9A-F])")


class MultipartError(Exception):
    """The body is no multipart body; the message says why."""


class Field(NamedTuple):
    """A header field with parameters, such as `form-data; name="file"`."""

    value: str
    parameters: dict[str, str]


def parse_field(field: str) -> Field:
    """Take a header field apart; names of parameters are in lower case.

    A backslash quotes only what needs it: some clients send those of file names as they are.
    """
    value, _, _ = field.partition(";")
    parameters: dict[str, str] = {}
    for name, quoted, plain in _PARAMETER.findall(field):
        if "\\" in quoted:
            quoted = _QUOTED_PAIR.sub(r"\1", quoted)
        parameters.setdefault(name.lower(), quoted or plain.strip())
    return Field(value.strip().lower(), parameters)


class Part:
    """One part: its fields, and its content, which can be read once.

    Attributes:
        content: The content as it arrives.
        take_whole: Gives all of the content, if it is here already and no longer than so many bytes; else
            None, and takes nothing.
    """

    def __init__(
        self, disposition: Field, content: AsyncIterator[bytes], take_whole: Callable[[int], bytes | None]
    ) -> None:
        self._disposition = disposition
        self.content = content
        self.take_whole = take_whole

    @property
    def name(self) -> str:
        """The name of the form field."""
        return self._disposition.parameters.get("name", "")

    @property
    def filename(self) -> str:
        """The file name with its directories.

        Clients write quotation marks and control characters in a name as percent-escapes, and nothing else.
        """
        extended = self._disposition.parameters.get("filename*")
        if extended is not None:
            charset, _, rest = extended.partition("'")
            encoded = rest.partition("'")[2]
            if charset.lower() == "utf-8":
                return unquote(encoded, errors="surrogateescape")
        name = self._disposition.parameters.get("filename", "")
        return _ESCAPED.sub(lambda escape: chr(int(escape[1], 16)), name) if "%" in name else name


class Multipart:
    """The parts of a body, one after the other."""

    def __init__(self, body: AsyncIterator[bytes], boundary: str) -> None:
        """Begin to read.

        Args:
            body: The body.
            boundary: The parameter of that name of the content type.

        Raises:
            MultipartError: The boundary can't be one.
        """
        if not boundary or len(boundary) > _MAX_BOUNDARY or not boundary.isascii():
            raise MultipartError("the content type has no sensible boundary")
        self._body = body
        self._delimiter = b"\r\n--" + boundary.encode()
        self._buffer = bytearray(b"\r\n")  # so that the first delimiter looks like all others
        self._ended = False
        self._content: AsyncIterator[bytes] | None = self._read_content()  # what comes before the parts

    async def next_part(self) -> Part | None:
        """The next part, or None after the last; what was not read of the one before is skipped.

        Raises:
            MultipartError: The body is malformed.
        """
        if self._ended:
            return None
        if self._content is not None:
            async for _ in self._content:
                pass
        if await self._peek(2) == b"--":
            self._ended = True
            return None
        disposition = parse_field(await self._read_header())
        self._content = self._read_content()
        return Part(disposition, self._content, self._take_whole)

    def _take_whole(self, most: int) -> bytes | None:
        """See `Part`; for content of which nothing was read."""
        delimiter = self._delimiter
        found = self._buffer.find(delimiter, 0, most + len(delimiter))
        after = found + len(delimiter)
        if found < 0 or self._buffer[after : after + 1] not in _AFTER_DELIMITER:
            return None
        content = bytes(memoryview(self._buffer)[:found])
        del self._buffer[:after]
        self._content = None
        return content

    async def _read_content(self) -> AsyncIterator[bytes]:
        """What comes before the next delimiter, which is taken too."""
        delimiter = self._delimiter
        while True:
            found = self._buffer.find(delimiter)
            if found < 0:
                found = max(len(self._buffer) - len(delimiter) + 1, 0)
            elif found == 0:
                del self._buffer[: len(delimiter)]
                if await self._peek(1) in _AFTER_DELIMITER:
                    return
                yield delimiter  # only the beginning of a longer line
                continue
            if found:
                chunk = bytes(memoryview(self._buffer)[:found])
                del self._buffer[:found]
                yield chunk
            else:
                piece = await self._next_piece()
                if len(piece) < _LARGE or not self._is_content(piece):
                    self._buffer += piece
                    continue
                # As it came: a copy of a long file takes longer than all else that is done with it.
                if self._buffer:
                    yield bytes(self._buffer)
                yield memoryview(piece)[: 1 - len(delimiter)]  # type: ignore[misc]  # as good as bytes
                self._buffer[:] = piece[1 - len(delimiter) :]

    def _is_content(self, piece: bytes) -> bool:
        """Whether no delimiter begins in what is here and the piece that follows it, but for its very end."""
        size = len(self._delimiter) - 1
        return (
            len(self._buffer) <= size
            and self._delimiter not in piece
            and self._delimiter not in self._buffer + piece[:size]
        )

    async def _read_header(self) -> str:
        """The field that tells what a part is, after the rest of the delimiter's line; empty if missing."""
        while (end := self._buffer.find(b"\r\n\r\n", 0, _MAX_HEADER)) < 0:
            if len(self._buffer) >= _MAX_HEADER:
                raise MultipartError("the header of a part is too long")
            await self._more()
        rest, *lines = self._buffer[:end].decode("utf-8", "surrogateescape").split("\r\n")
        del self._buffer[: end + 4]
        if rest.strip():
            raise MultipartError("there is more than a boundary in its line")
        disposition: str | None = None
        for line in lines:
            name, colon, value = line.partition(":")
            if not colon:
                raise MultipartError("a header field of a part has no colon")
            if disposition is None and name.strip().lower() == "content-disposition":
                disposition = value.strip()
        return disposition or ""

    async def _peek(self, size: int) -> bytes:
        while len(self._buffer) < size:
            await self._more()
        return bytes(self._buffer[:size])

    async def _more(self) -> None:
        self._buffer += await self._next_piece()

    async def _next_piece(self) -> bytes:
        try:
            return await anext(self._body)
        except StopAsyncIteration:
            raise MultipartError("the body ends before its last boundary") from None
