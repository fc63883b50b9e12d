"""Bodies of requests that are made while they are sent."""

from __future__ import annotations

import io
import os
import stat
from collections.abc import Callable, Iterable, Iterator
from typing import IO, TypeGuard

from sandbox_sync.transport.green import eventlet_patched, gevent_patched
from sandbox_sync.transport.sockets import DeadlineSocket


class Source:
    """A body made of parts, which remembers the error of whoever makes them.

    Attributes:
        error: The error.
    """

    def __init__(self, parts: Iterable[bytes]) -> None:
        self._parts = parts
        self.error: BaseException | None = None

    def __iter__(self) -> Iterator[bytes]:
        try:
            yield from self._parts
        except Exception as error:
            self.error = error
            raise


class FileSource(Source):
    """A part of a file of the system's, which the kernel can send without its passing through here.

    Args:
        file: The file; `is_of_system` says that it is one.
        start: Where the part begins.
        length: How many bytes it has.
        rest: Reads and gives what comes from a position on, for where the kernel cannot do it.
    """

    def __init__(
        self, file: IO[bytes], start: int, length: int, rest: Callable[[int], Iterable[bytes]]
    ) -> None:
        super().__init__(rest(start))
        self._file = file
        self._start = start
        self._length = length
        self._rest = rest

    def send(self, sock: DeadlineSocket) -> None:
        """Send it.

        Raises:
            OSError: The connection broke. Errors of reading the file are raised as they are, and remembered.
        """
        sent = 0
        if not gevent_patched() and not eventlet_patched():  # which the call would hold up
            sent = sock.send_file(self._file.fileno(), self._start, self._length)
        if sent == self._length:
            self._file.seek(self._start + sent)  # as if it had been read
            return
        self._parts = self._rest(self._start + sent)
        for part in self:
            sock.sendall(part)


def is_of_system(file: object) -> TypeGuard[IO[bytes]]:
    """Whether what a file object gives is what a regular file of the system's holds, as it is."""
    raw = file.raw if type(file) in (io.BufferedReader, io.BufferedRandom) else file  # type: ignore[attr-defined]
    if type(raw) is not io.FileIO:
        return False
    try:
        return stat.S_ISREG(os.fstat(raw.fileno()).st_mode)
    except (OSError, ValueError):
        return False
