"""The chunks of HTTP/1.1, cut by the hundreds out of what has arrived.

urllib3 reads each chunk with three calls of its own, which is most of what a small event of output costs.
"""

from __future__ import annotations

from http.client import HTTPException

_NEWLINE = b"\r\n"
_LONGEST_LINE = 1 << 16


class Chunks:
    """What is left of an answer in chunks when the chunks are gone.

    Attributes:
        ended: Whether the answer has come to its end.
    """

    def __init__(self) -> None:
        self.ended = False
        self._rest = b""  # the beginning of a line
        self._left = 0  # bytes of a chunk that has begun
        self._before_line = 0  # bytes of the end of a chunk before the length of the next one
        self._in_trailers = False

    def feed(self, data: bytes) -> bytes:
        """The content that these bytes bring; it may be none.

        Raises:
            HTTPException: They are not what has to come next.
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
                raise HTTPException("a chunk does not end where it says")
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
        if len(self._rest) > _LONGEST_LINE:
            raise HTTPException("a line between chunks is too long")
        return pieces[0] if len(pieces) == 1 else b"".join(pieces)

    def _skip_trailers(self) -> None:
        *lines, self._rest = self._rest.split(b"\n")
        if any(line in (b"", b"\r") for line in lines):
            self.ended = True
            if self._rest or lines[-1] not in (b"", b"\r"):
                raise HTTPException("something follows the end of the answer")


def _length(line: bytes) -> int:
    digits = line.partition(b";")[0].strip()
    if not digits.isalnum():  # int() takes signs and underscores
        raise HTTPException("the length of a chunk is no number")
    try:
        return int(digits, 16)
    except ValueError:
        raise HTTPException("the length of a chunk is no number") from None
