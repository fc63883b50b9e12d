"""Requests and answers of HTTP/1.1 on one connection."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import TYPE_CHECKING, TypeAlias

from sandbox_sync.transport.chunks import Chunks
from sandbox_sync.transport.heads import AnswerError, Head, end_of_head, read_head
from sandbox_sync.transport.sockets import DeadlineSocket
from sandbox_sync.transport.sources import FileSource, Source

if TYPE_CHECKING:
    import socket

    from sandbox_sync.transport.sockets import TimeLimit

Body: TypeAlias = bytes | Iterable[bytes] | None

NETWORK_ERRORS = (OSError, AnswerError)
"""What reading and writing raise; `answers.failure_of` tells what it means."""

BLOCK = 256 * 1024
"""Bytes moved at once: measured, less costs throughput and more gains nothing."""

# glibc maps so much memory anew for each block that is read, until it has seen as much freed: measured, a
# process reads five times as fast from then on.
bytes(2 * BLOCK)

SHORT = 64 * 1024
"""Bytes of a body that it pays to copy, so that it goes out together with the head."""

# Bytes that are read at once until more are there: memory for larger reads costs page faults.
_SIP = 64 * 1024
_MOST_INTERIM = 100  # answers that say that another one follows


class Connection:
    """A connection to a server, or to the proxy before it. It carries one call at a time.

    Args:
        sock: What is read and written.
        link: The socket below that, which keeps to limits; the same one, save for encryption in encryption.

    Attributes:
        idle_since: Reading of the monotonic clock when its last call ended.
    """

    __slots__ = ("_ahead", "_at_once", "_link", "_sock", "_usable", "idle_since")

    def __init__(self, sock: socket.socket, link: DeadlineSocket) -> None:
        self._sock = sock
        self._link = link
        self._ahead = b""  # what has been read of what comes next
        self._at_once = _SIP
        self._usable = True
        self.idle_since = 0.0

    def bound(self, limit: TimeLimit | None) -> None:
        """Set what bounds all that is done from now on."""
        self._link.bound(limit)

    def interrupt(self) -> None:
        """End it now, whatever other threads do with it."""
        self._link.interrupt()

    def close(self) -> None:
        """Close it."""
        self._sock.close()

    def send(self, head: bytes, body: Body, *, chunked: bool) -> None:
        """Send a request.

        Args:
            head: Its head.
            body: Its body; parts are sent as they come.
            chunked: Whether the head says that parts are sent as chunks.

        Raises:
            OSError: It broke. Errors of who makes the parts are raised as they are.
        """
        try:
            if isinstance(body, FileSource) and type(self._sock) is DeadlineSocket:
                self._sock.sendall(head)
                body.send(self._sock)
                return
            for piece in _pieces(head, body, chunked):
                self._sock.sendall(piece)
        except (BrokenPipeError, ConnectionResetError):
            if isinstance(body, Source) and body.error is not None:
                raise  # it is not this connection that broke
            self._usable = False  # and the server may have said why it does not want more

    def answer(self, method: str, free: Callable[[Connection], object]) -> Answer:
        """Wait for the answer.

        Args:
            method: HTTP method of the request.
            free: Is called when the answer has been read to its end, if the connection can serve other calls.

        Raises:
            OSError: It broke.
            AnswerError: What came is no answer.
        """
        head = self.head(method)
        self._usable = self._usable and head.lasting
        return Answer(self, head, free)

    def head(self, method: str) -> Head:
        """Wait for the head of the answer; for the rest see `answer`."""
        for _ in range(_MOST_INTERIM):
            head = self._next_head(method)
            if head.status == 101 or head.status >= 200:
                return head
        raise AnswerError("the server says for ever that its answer will follow")

    def receive(self, size: int) -> bytes:
        """What comes next, as much as there is of it; nothing at the end."""
        data = self._ahead
        if not data:
            size = min(size, self._at_once)
            data = self._sock.recv(size)
            self._at_once = _SIP if len(data) < min(size, _SIP) else BLOCK
            return data
        self._ahead = data[size:]
        return data[:size]

    def unread(self, data: bytes) -> None:
        """Have these bytes, which were read too many, come next."""
        self._ahead = data + self._ahead

    @property
    def has_surplus(self) -> bool:
        """Whether more has come than what was read, as it were an answer to the next call."""
        return bool(self._ahead)

    @property
    def may_serve(self) -> bool:
        """Whether it can carry another call, if it is open."""
        return self._usable and not self._ahead

    def is_open(self) -> bool:
        """Whether the server has neither closed it nor sent anything while it was idle."""
        return self._link.is_quiet()

    def _next_head(self, method: str) -> Head:
        data = self._ahead
        end = end_of_head(data) if data else 0
        while not end:
            more = self._sock.recv(_SIP)
            if not more:
                where = "within the head of its answer" if data else "before its answer"
                raise AnswerError(f"the server closed the connection {where}")
            seen = len(data)
            data = data + more if data else more
            end = end_of_head(data, seen)
        self._ahead = data[end:]
        return read_head(data[:end], method)


class Answer:
    """An answer, of which the head has come. It has to be read to its end or closed; dropping it closes it.

    Attributes:
        status: HTTP status.
        reason: What the server calls it.
        headers: Names in lower case.
        framed: Whether it says where it ends, so that a broken connection is not taken for its end.
    """

    _connection: Connection | None = None  # where a signal handler's error has cut the initialization short

    def __init__(self, connection: Connection, head: Head, free: Callable[[Connection], object]) -> None:
        self.status = head.status
        self.reason = head.reason
        self.headers: Mapping[str, str] = head.headers
        self.framed = head.chunked or head.length is not None
        self._connection = connection
        self._free = free
        self._chunks = Chunks() if head.chunked else None
        self._left = head.length
        self._ended = False

    def block(self, size: int = BLOCK) -> bytes:
        """The content that comes next, as much as has arrived. None is at its end, after which the connection
        serves other calls.

        Args:
            size: Bytes to read at most.

        Raises:
            OSError: The connection broke.
            AnswerError: The answer was cut short, or is not in chunks as it should be.
        """
        connection = self._connection
        if connection is None:
            if self._ended:
                return b""
            raise AnswerError("the answer has been closed")
        if self._chunks is not None:
            content = self._chunk(connection, self._chunks, size)
        elif self._left == 0:
            content = b""
        else:
            content = connection.receive(size if self._left is None else min(size, self._left))
            if self._left is not None:
                if not content:
                    raise AnswerError(f"the connection ended {self._left} bytes before the end of the answer")
                self._left -= len(content)
        if not content:
            self._end()
        return content

    def blocks(self) -> Iterator[bytes]:
        """The rest of the content as it arrives; see `block`."""
        return iter(self.block, b"")

    def bound(self, limit: TimeLimit | None) -> None:
        """Set what bounds reading it from now on."""
        connection = self._connection
        if connection is not None:
            connection.bound(limit)

    def interrupt(self) -> None:
        """End it now, whatever thread reads it."""
        connection = self._connection
        if connection is not None:
            connection.interrupt()

    def close(self) -> None:
        """Give up what has not been read, if anything."""
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.close()

    def __del__(self) -> None:
        self.close()

    def _chunk(self, connection: Connection, chunks: Chunks, size: int) -> bytes:
        content = b""
        while not content and not chunks.ended:
            data = connection.receive(size)
            if not data:
                raise AnswerError("the connection ended before the last chunk of the answer")
            content = chunks.feed(data)
            if chunks.ended and chunks.surplus:
                connection.unread(chunks.surplus)
        return content

    def _end(self) -> None:
        connection, self._connection = self._connection, None
        if connection is None:
            raise AnswerError("the answer has been closed")
        self._ended = True
        if connection.may_serve:
            connection.idle_since = time.monotonic()
            self._free(connection)
        else:
            connection.close()


def _pieces(head: bytes, body: Body, chunked: bool) -> Iterable[bytes]:
    """What to send at once, one after the other."""
    if body is None:
        return (head,)
    if not isinstance(body, bytes):
        return _of_parts(head, body, chunked)
    # In one piece, for which the server wakes up once.
    return (head + body,) if len(body) <= SHORT else (head, body)


def _of_parts(head: bytes, parts: Iterable[bytes], chunked: bool) -> Iterator[bytes]:
    yield head
    for part in parts:
        if part:
            yield b"%x\r\n%b\r\n" % (len(part), part) if chunked else part
    if chunked:
        yield b"0\r\n\r\n"
