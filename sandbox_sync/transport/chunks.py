"""The chunks of HTTP/1.1, cut by the hundreds out of what has arrived.

Reading each chunk with calls of its own would be most of what a small event of output costs.
"""

from __future__ import annotations

import re
from functools import lru_cache

from sandbox_sync.transport.heads import AnswerError

_size = re.compile(rb"[ \t]*([0-9A-Fa-f]{1,32})[ \t]*(?:;[^\n]*)?\r?").fullmatch  # and what extends it
_NEWLINE = b"\r\n"
_LONGEST_LINE = 1 << 16


class Chunks:
    """What is left of an answer in chunks when the chunks are gone.

    Attributes:
        ended: Whether the answer has come to its end.
        surplus: What came with its end and is no part of it.
    """

    def __init__(self) -> None:
        self.ended = False
        self.surplus = b""
        self._rest = b""  # the beginning of a line
        self._left = 0  # bytes of a chunk that has begun
        self._before_line = 0  # bytes of the end of a chunk before the length of the next one
        self._in_trailers = False
        self._trailers = 0  # bytes of those that have been skipped

    def feed(self, data: bytes) -> bytes:
        """The content that these bytes bring; it may be none.

        Raises:
            AnswerError: They are not what has to come next.
        """
        pieces = []
        at = min(self._left, len(data))
        if at:
            self._left -= at
            if self._left:
                return data
            pieces.append(data[:at])
        elif self._rest:
            data = self._rest + data
        while not self._in_trailers:
            start = at + self._before_line
            end = data.find(b"\n", start)
            if end < 0:
                break
            length = _length(data[start:end])
            if start > at and data[at:start] != _NEWLINE:
                raise AnswerError("a chunk does not end where it says")
            self._before_line = len(_NEWLINE)
            start = end + 1
            at = start + length
            if at > len(data):
                self._left = at - len(data)
                at = len(data)
            if length:
                pieces.append(data[start:at])
            else:
                self._in_trailers = True
            if self._left:
                break
        self._rest = data[at:]
        if self._in_trailers:
            self._skip_trailers()
        if len(self._rest) + self._trailers > _LONGEST_LINE:
            raise AnswerError("a line between chunks is too long")
        return pieces[0] if len(pieces) == 1 else b"".join(pieces)

    def _skip_trailers(self) -> None:
        while not self.ended:
            line, newline, rest = self._rest.partition(b"\n")
            if not newline:
                return
            self._trailers += len(line)
            self._rest = rest
            self.ended = line in (b"", b"\r")
        self.surplus, self._rest = self._rest, b""


@lru_cache(256)  # the chunks of small events have few lengths
def _length(line: bytes) -> int:
    length = _size(line)
    if length is None:
        raise AnswerError("the length of a chunk is no number")
    return int(length[1], 16)
