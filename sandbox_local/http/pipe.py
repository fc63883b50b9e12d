"""From a socket to a file without a copy in this process."""

from __future__ import annotations

import fcntl
import os
import socket
from contextlib import AbstractContextManager

_SIZE = 1 << 20
_F_SETPIPE_SZ = 1031  # fcntl's from Python 3.10 on, but not in every build


class Pipe(AbstractContextManager["Pipe"]):
    """The kernel's buffer through which bytes go by splice(2): it holds the pages that they came in."""

    def __init__(self) -> None:
        """Open it.

        Raises:
            OSError: There are no more descriptors.
        """
        self._reader, self._writer = os.pipe()
        self._size = 64 << 10
        try:
            self._size = fcntl.fcntl(self._writer, _F_SETPIPE_SZ, _SIZE)
        except OSError:
            pass  # this user has many pipes; a small one does, only slower

    def __exit__(self, *_: object) -> None:
        os.close(self._reader)
        os.close(self._writer)

    def move(self, source: socket.socket, fd: int, most: int) -> int:
        """Move what has arrived; returns how many bytes that were.

        Args:
            source: A non-blocking socket.
            fd: A file, at the place to write.
            most: The most bytes to move.

        Raises:
            EOFError: The other side of the socket will send no more.
            OSError: The connection broke, or the file can't be written.
        """
        moved = 0
        while moved < most:
            try:
                count = os.splice(source.fileno(), self._writer, min(self._size, most - moved))
            except BlockingIOError:
                break
            if not count:
                raise EOFError
            moved += count
            while count:
                count -= os.splice(self._reader, fd, count)
        return moved
