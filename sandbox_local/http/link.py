"""One TCP connection, whatever is spoken on it."""

from __future__ import annotations

import asyncio
import logging
import os
import select
import socket
from collections.abc import Callable, Iterable
from typing import Protocol, cast

from sandbox_local.http.errors import ClientGone
from sandbox_local.http.message import FileSlice
from sandbox_local.http.pipe import Pipe
from sandbox_local.threads import run_to_end

log = logging.getLogger(__name__)

_FILE_STEP = 4 << 20  # bytes of a file moved before others get their turn
_JOINED = 64 << 10
_KEEPALIVE_SECONDS = 60


class Codec(Protocol):
    """What turns the bytes of a connection into requests and answers into bytes."""

    @property
    def half_open(self) -> bool:
        """Whether a client that has closed its side may still be listening."""

    def receive(self, data: memoryview) -> None:
        """Take bytes that arrived; they are valid during the call only."""

    def ended(self) -> None:
        """The client closed its side."""

    def lost(self) -> None:
        """The connection is gone."""

    def expired(self) -> None:
        """The link's deadline has passed."""

    def stop(self) -> None:
        """Take no more requests, finish those that run, then close."""

    def running(self) -> Iterable[asyncio.Task[None]]:
        """The tasks that make answers."""


class Owner(Protocol):
    """Who keeps account of links, and gives each its codec."""

    buffer: memoryview

    def opened(self, link: Link) -> Codec | None:
        """A link is up; None means that the owner has turned it away."""

    def closed(self, link: Link) -> None:
        """A link is gone."""


class Link(asyncio.BufferedProtocol):
    """A connection: bytes in, bytes out with backpressure, files out through the kernel.

    All links of a server share one receive buffer: what is in it is consumed before the loop reads again.

    Attributes:
        deadline: Loop time at which the codec's `expired` is called, or None.
        codec: Who speaks on this link.
        peer: Address of the client in words.
        lost: Whether the connection is gone.
        reading: Whether bytes are being read from the network.
    """

    def __init__(self, owner: Owner, write_buffer: int) -> None:
        self.deadline: float | None = None
        self.codec: Codec | None = None
        self.peer = ""
        self.lost = False
        self.reading = True
        self._finished = False
        self._owner = owner
        self._write_buffer = write_buffer
        self._writable = asyncio.Event()
        self._writable.set()
        self._transport: asyncio.Transport
        self._socket: socket.socket

    # What the event loop calls.

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        self._socket = transport.get_extra_info("socket")
        address = transport.get_extra_info("peername")
        self.peer = f"{address[0]}:{address[1]}" if isinstance(address, tuple) else str(address)
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        if self._socket.family in (socket.AF_INET, socket.AF_INET6):
            self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, _KEEPALIVE_SECONDS)
            self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPINTVL, _KEEPALIVE_SECONDS // 4)
            self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPCNT, 4)
        self._transport.set_write_buffer_limits(self._write_buffer)
        self.codec = self._owner.opened(self)

    def get_buffer(self, sizehint: int) -> memoryview:
        return self._owner.buffer

    def buffer_updated(self, nbytes: int) -> None:
        if self.codec is None:
            return
        try:
            self.codec.receive(self._owner.buffer[:nbytes])
        except Exception:
            log.exception("connection of %s dropped", self.peer)
            self.abort()

    def eof_received(self) -> bool:
        if self.codec is None:
            return False
        self.codec.ended()
        return self.codec.half_open

    def connection_lost(self, exc: Exception | None) -> None:
        self.lost = True
        self.deadline = None
        self._writable.set()
        if self.codec is not None:
            self.codec.lost()
        self._owner.closed(self)

    def pause_writing(self) -> None:
        self._writable.clear()

    def resume_writing(self) -> None:
        self._writable.set()

    # What a codec calls.

    def write(self, *pieces: bytes) -> None:
        """Send bytes; they wait in memory while the client does not read, so follow with `drain`."""
        if self._finished or self._transport.is_closing():
            return
        if len(pieces) > 1 and sum(map(len, pieces)) <= _JOINED:
            pieces = (b"".join(pieces),)  # one packet; more than that fills packets without being copied
        for piece in pieces:
            self._transport.write(piece)

    def unsent(self) -> int:
        """Number of bytes that wait for the client to read."""
        return self._transport.get_write_buffer_size()

    async def drain(self) -> None:
        """Wait until few enough bytes are unsent.

        Raises:
            ClientGone: The connection is gone.
        """
        while not self._writable.is_set():  # another may have been faster
            await self._writable.wait()
        if self.lost:
            raise ClientGone(self.peer)

    async def send_file(self, file: FileSlice) -> None:
        """Send a part of a file from the page cache to the socket; the descriptor stays open.

        Raises:
            ClientGone: The connection is gone.
            EOFError: The file is shorter than the slice.
            OSError: The file can't be read.
        """
        self._transport.set_write_buffer_limits(0)
        try:
            await self.drain()
        finally:
            self._transport.set_write_buffer_limits(self._write_buffer)
        loop = asyncio.get_running_loop()
        out = os.dup(self._socket.fileno())  # the loop lets nobody else wait for a transport's own descriptor
        try:
            offset, end = file.offset, file.offset + file.length
            while offset < end:
                try:
                    sent = os.sendfile(out, file.fd, offset, min(end - offset, _FILE_STEP))
                except BlockingIOError:
                    await _until(loop.add_writer, loop.remove_writer, out)
                    continue
                except (BrokenPipeError, ConnectionResetError):
                    raise ClientGone(self.peer) from None
                if sent == 0:
                    raise EOFError(f"the file ends at {offset}, expected {end}")
                offset += sent
                await asyncio.sleep(0)
        finally:
            os.close(out)

    async def receive_file(self, fd: int, length: int) -> None:
        """Move bytes from the socket to a file in threads, past the codec; reading must be paused.

        Raises:
            ClientGone: The connection ended before.
            OSError: The file can't be written.
        """
        loop = asyncio.get_running_loop()
        with self._socket.dup() as source, Pipe() as pipe:
            while length:
                try:
                    moved = await run_to_end(pipe.move, source, fd, min(length, _FILE_STEP))
                except (EOFError, ConnectionError):
                    raise ClientGone(self.peer) from None
                length -= moved
                if not moved:
                    await _until(loop.add_reader, loop.remove_reader, source.fileno())

    def pause_reading(self) -> None:
        """Leave what the client sends in the network."""
        if self.reading and not self._transport.is_closing():
            self.reading = False
            self._transport.pause_reading()

    def resume_reading(self) -> None:
        """Read again."""
        if not self.reading and not self._transport.is_closing():
            self.reading = True
            self._transport.resume_reading()

    def finish(self) -> None:
        """Send what is unsent, then tell the client that no more will come."""
        if not self._finished and not self._transport.is_closing():
            self._finished = True
            try:
                self._transport.write_eof()
            except OSError:
                self.abort()  # the client has reset the connection, the loop is about to hear of it

    def close(self) -> None:
        """Close once everything is sent."""
        self._transport.close()

    def abort(self) -> None:
        """Close at once and drop what is unsent."""
        self._transport.abort()

    def abandoned(self) -> bool:
        """Whether the client has gone while nobody read from it."""
        if self.reading or self.lost:
            return False
        gone = select.POLLHUP | select.POLLERR
        if self.codec is None or not self.codec.half_open:
            gone |= select.POLLRDHUP
        poll = select.poll()
        poll.register(self._socket.fileno(), gone)
        return bool(poll.poll(0))


def _settle(future: asyncio.Future[None]) -> None:
    if not future.done():
        future.set_result(None)


async def _until(add: Callable[..., None], remove: Callable[[int], object], fd: int) -> None:
    """Wait until a descriptor is readable or writable, by the methods of the loop that tell it."""
    ready = asyncio.get_running_loop().create_future()
    add(fd, _settle, ready)
    try:
        await ready
    finally:
        remove(fd)
