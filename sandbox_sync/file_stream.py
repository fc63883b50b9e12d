"""The contents of a file in a sandbox as a file object: what `files.read(path, format="stream")` returns."""

from __future__ import annotations

import io
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import builtins

    from typing_extensions import Self

    from sandbox_sync.transport.files import Download


class FileStream(io.BufferedIOBase):
    """A file's contents as they arrive: an iterator of chunks, and a binary file object to read from.

    It holds one chunk at a time, 256 KiB at most. Iterating gives chunks and not lines; `readline` gives
    lines, and `io.TextIOWrapper(stream)` text. It cannot seek.

    Close it, use it in a `with` block, or drop it: that ends the transfer. A transfer that broke raises, and
    raises again for who reads on: only a file that came whole has an end. Close it from any thread; read it
    in one at a time.

    Attributes:
        name: The file's path, as it was asked for.
        mode: "rb".

    Reading raises:
        SandboxUnreachableException: Nothing came for `stream_idle_timeout`.
        ConnectionException: The connection broke, or the stream was closed while another thread read it.
        SandboxException: The transfer failed otherwise.
        ValueError: The stream has been closed.
    """

    # No BufferedReader: its lock, held by another thread at a fork, would never be released in the child.

    def __init__(self, body: Download, name: str) -> None:
        self.name = name
        self.mode = "rb"
        self._body = body
        self._chunk = b""
        self._at = 0  # how much of the chunk has been handed out

    def __repr__(self) -> str:
        return f"<FileStream of {self.name!r}{', closed' if self.closed else ''}>"

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> bytes:
        """The next chunk."""
        if self.closed or self._at < len(self._chunk):
            return self.read1()
        return next(self._body)  # the short way, for who only iterates

    def read(self, size: int | None = -1, /) -> bytes:
        """Read.

        Args:
            size: Bytes to read, fewer only at the end of the file; all that follows when negative or None.
        """
        if size is None or size < 0:
            return b"".join(self)
        parts = [self.read1(size)]
        left = size - len(parts[0])
        while left and parts[-1]:
            parts.append(self.read1(left))
            left -= len(parts[-1])
        return parts[0] if len(parts) == 1 else b"".join(parts)

    def read1(self, size: int = -1, /) -> bytes:
        """Read what is there, or else what comes next.

        Args:
            size: Bytes to read at most; a chunk when negative. None are read only at the end of the file.
        """
        if not self._fill() or size == 0:
            return b""
        end = len(self._chunk) if size < 0 else self._at + size
        data = self._chunk[self._at : end]
        self._at += len(data)
        return data

    def readline(self, size: int | None = -1, /) -> bytes:
        """Read to the end of the line, which is part of what is read.

        Args:
            size: Bytes to read at most; any number when negative or None.
        """
        left = -1 if size is None else size
        parts = []
        while left and self._fill():
            end = self._chunk.find(b"\n", self._at) + 1 or len(self._chunk)
            parts.append(self.read1(end - self._at if left < 0 else min(left, end - self._at)))
            if parts[-1].endswith(b"\n"):
                break
            left = left if left < 0 else left - len(parts[-1])
        return b"".join(parts)

    def readlines(self, hint: int | None = -1, /) -> builtins.list[bytes]:
        """Read lines.

        Args:
            hint: Stop after the line with which this many bytes are read; all of them when None or negative.
        """
        lines = []
        size = 0
        for line in iter(self.readline, b""):
            lines.append(line)
            size += len(line)
            if hint is not None and 0 < hint <= size:
                break
        return lines

    def readable(self) -> bool:
        """Whether it can be read from: always."""
        if self.closed:
            raise ValueError("the stream is closed")
        return True

    def close(self) -> None:
        """Give up what was not read, from any thread and any number of times."""
        self._body.close()
        super().close()

    def _fill(self) -> bool:
        """Have something to hand out, unless the file ends here."""
        if self.closed:
            raise ValueError("the stream is closed: read it before, or open it anew")
        if self._at == len(self._chunk):
            self._chunk, self._at = next(self._body, b""), 0
        return bool(self._chunk)
