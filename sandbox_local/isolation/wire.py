"""Framed JSON messages with file descriptors over a UNIX stream socket.

The one format in which the server, the zygote, the agents and the file workers talk. A frame is a header
(length of the body, number of descriptors), then the body: one JSON object. The descriptors travel with the
frame's first byte. Strings may hold lone surrogates (`os.fsdecode`): any path or argument passes unchanged.

Requests are `{"id": n, "op": str, "args": {...}}`; replies, in any order, `{"id": n, "ok": {...}}` or
`{"id": n, "error": {"kind": str, "errno": int, "message": str}}`, of a kind that `errors.describe` knows.
What is neither has an "event".

Whoever receives does not trust the sender: every length is bounded, nothing but JSON is decoded, and all that
is malformed is a `WireError`, after which the socket is of no more use.
"""

from __future__ import annotations

import array
import errno
import json
import os
import socket
import struct
from collections.abc import Sequence
from typing import Any

MAX_BODY = 32 << 20
"""Bytes of the longest body."""

MAX_FDS = 8
"""Descriptors of one frame."""

_HEADER = struct.Struct("!IB")
_FD_SIZE = array.array("i").itemsize
_CLOEXEC = getattr(
    socket, "MSG_CMSG_CLOEXEC", 0x40000000
)  # without it every command would inherit what we receive
_CHUNK = 1 << 20

Message = dict[str, Any]


class WireError(Exception):
    """The peer sent something that is no frame."""


class DescriptorsLost(OSError):
    """A frame came without its descriptors: this process may open no more. The socket is still of use.

    Attributes:
        message: The rest of the frame.
    """

    def __init__(self, message: Message) -> None:
        super().__init__(errno.EMFILE, os.strerror(errno.EMFILE))
        self.message = message


def encode(message: Message, fd_count: int) -> bytes:
    """The frame of a message that takes `fd_count` descriptors with it.

    Raises:
        ValueError: The message or the number of descriptors is too large.
    """
    body = json.dumps(message, ensure_ascii=False, separators=(",", ":")).encode("utf-8", "surrogatepass")
    if len(body) > MAX_BODY or fd_count > MAX_FDS:
        raise ValueError(f"a message of {len(body)} bytes and {fd_count} descriptors is too large")
    return _HEADER.pack(len(body), fd_count) + body


def ancillary(fds: Sequence[int]) -> list[tuple[int, int, bytes]]:
    """The ancillary data that makes `sendmsg` pass descriptors."""
    return [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", fds).tobytes())] if fds else []


def send(sock: socket.socket, message: Message, fds: Sequence[int] = ()) -> None:
    """Send one message over a blocking socket. The descriptors stay open here.

    Raises:
        ValueError: The message is too large; nothing was sent.
        OSError: The peer is gone.
    """
    frame = memoryview(encode(message, len(fds)))
    sent = sock.sendmsg([frame], ancillary(fds))
    if sent < len(frame):
        sock.sendall(frame[sent:])


def recv(sock: socket.socket) -> tuple[Message, list[int]]:
    """Receive one message and its descriptors (close-on-exec) over a blocking socket.

    Raises:
        EOFError: The peer closed the socket.
        WireError: The peer sent something that is no frame.
        DescriptorsLost: There was no room for the message's descriptors.
        OSError: The peer is gone.
    """
    decoder = Decoder()
    while (frame := decoder.read(sock)) is None:
        pass
    return frame


class Decoder:
    """Puts frames together from a socket, non-blocking or not; takes nothing beyond the current frame."""

    def __init__(self, max_body: int = MAX_BODY) -> None:
        """Begin.

        Args:
            max_body: Bytes of the longest body to take.
        """
        self._max_body = max_body
        self._start()

    def _start(self) -> None:
        self._buffer = bytearray()
        self._fds: list[int] = []
        self._lost = False  # whether descriptors came for which there was no room
        self._size = _HEADER.size
        self._fd_count: int | None = None  # None while the header is incomplete

    def read(self, sock: socket.socket) -> tuple[Message, list[int]] | None:
        """Take what the socket has, once; returns the frame that it completes, if it does.

        Raises:
            BlockingIOError: The socket has nothing yet.
            EOFError: The peer closed the socket.
            WireError: The peer sent something that is no frame.
            DescriptorsLost: There was no room for the descriptors of the frame that is complete now.
            OSError: The peer is gone.
        """
        try:
            self._take(sock)
            if len(self._buffer) < self._size:
                return None
            if self._fd_count is None:
                self._size, self._fd_count = _HEADER.unpack(self._buffer)
                if self._size > self._max_body or self._fd_count > MAX_FDS:
                    raise WireError(f"frame of {self._size} bytes and {self._fd_count} descriptors")
                self._buffer.clear()
                if self._size:
                    return None
            if len(self._fds) != self._fd_count and not self._lost:
                raise WireError(f"{len(self._fds)} of {self._fd_count} descriptors arrived")
            message = _decode(self._buffer)
        except WireError:
            self.close()
            raise
        if self._lost:
            self.close()
            self._start()
            raise DescriptorsLost(message)
        fds = self._fds
        self._start()
        return message, fds

    def close(self) -> None:
        """Close the descriptors of a frame that is not complete."""
        for fd in self._fds:
            os.close(fd)
        self._fds = []

    def _take(self, sock: socket.socket) -> None:
        wanted = min(self._size - len(self._buffer), _CHUNK)
        data, control, flags, _ = sock.recvmsg(wanted, socket.CMSG_SPACE(MAX_FDS * _FD_SIZE), _CLOEXEC)
        for level, kind, content in control:
            if (level, kind) == (socket.SOL_SOCKET, socket.SCM_RIGHTS):
                fds = array.array("i")
                fds.frombytes(content[: len(content) - len(content) % _FD_SIZE])
                self._fds.extend(fds)
        if len(self._fds) > MAX_FDS:
            raise WireError("too many descriptors came at once")
        self._lost = self._lost or bool(flags & socket.MSG_CTRUNC)
        if not data:
            self.close()
            raise EOFError
        self._buffer += data


def _decode(body: bytearray) -> Message:
    try:
        message = json.loads(body.decode("utf-8", "surrogatepass"))
    except (ValueError, RecursionError) as error:
        raise WireError(f"frame of {len(body)} bytes is not JSON") from error
    if not isinstance(message, dict):
        raise WireError("frame is not a JSON object")
    return message
