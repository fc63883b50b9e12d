"""A socket to whom nobody trusts, served by a selector: neither side can make the other wait."""

from __future__ import annotations

import os
import selectors
import socket
from collections import deque
from collections.abc import Callable, Sequence

from sandbox_local.isolation import wire


class Link:
    """Sends and takes frames of `wire`."""

    def __init__(
        self,
        sock: socket.socket,
        selector: selectors.BaseSelector,
        on_message: Callable[[wire.Message], None],
        on_end: Callable[[], None],
    ) -> None:
        """Take over a socket.

        Args:
            sock: The socket.
            selector: Attends to it.
            on_message: Called with each message; descriptors that come with one are closed.
            on_end: Called when the other side has closed, or sent what is no frame.
        """
        sock.setblocking(False)
        self._sock = sock
        self._selector = selector
        self._on_message = on_message
        self._on_end = on_end
        self._decoder = wire.Decoder()
        self._unsent: deque[tuple[memoryview, list[int]]] = deque()
        selector.register(sock, selectors.EVENT_READ, self._serve)

    def put(self, data: bytes) -> None:
        """Send bytes that are no frame."""
        self._send(memoryview(data), [])

    def send(self, message: wire.Message, fds: Sequence[int] = ()) -> None:
        """Send a message. The descriptors stay open here."""
        self._send(memoryview(wire.encode(message, len(fds))), [os.dup(fd) for fd in fds])

    def _send(self, data: memoryview, fds: list[int]) -> None:
        self._unsent.append((data, fds))
        self._flush()

    def _serve(self) -> None:
        self._flush()
        try:
            frame = self._decoder.read(self._sock)
        except BlockingIOError:
            return
        except (EOFError, OSError, wire.WireError):
            self._on_end()
            return
        if frame:
            message, fds = frame
            for fd in fds:
                os.close(fd)
            self._on_message(message)

    def _flush(self) -> None:
        try:
            while self._unsent:
                data, fds = self._unsent[0]
                sent = self._sock.sendmsg([data], wire.ancillary(fds))
                for fd in fds:
                    os.close(fd)
                self._unsent.popleft()
                if sent < len(data):
                    self._unsent.appendleft((data[sent:], []))
        except BlockingIOError:
            pass
        except OSError:
            self._on_end()
        events = selectors.EVENT_READ | (selectors.EVENT_WRITE if self._unsent else 0)
        self._selector.modify(self._sock, events, self._serve)
