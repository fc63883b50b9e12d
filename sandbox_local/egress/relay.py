"""The two ends of a connection that goes out, and what flows between them: bounded, half-closes kept."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import struct
from typing import cast

_PENDING_BYTES = 80 << 10
"""What an end may have sent before it has its counterpart."""

_RESET = struct.pack("ii", 1, 0)


class End(asyncio.Protocol):
    """One end.

    Attributes:
        pending: What has come while there was no counterpart.
        lost: Resolves when it is gone.
    """

    def __init__(self) -> None:
        self.pending = bytearray()
        self.lost: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._transport: asyncio.Transport | None = None
        self._other: End | None = None
        self._ended = False
        self._full = False
        self._came = asyncio.Event()

    @property
    def transport(self) -> asyncio.Transport:
        """Its connection."""
        assert self._transport is not None
        return self._transport

    async def more(self) -> None:
        """Wait for more than is pending.

        Raises:
            EOFError: No more will come.
        """
        if self._ended or self.lost.done():
            raise EOFError
        self._came.clear()
        await self._came.wait()

    def take(self, length: int) -> bytes:
        """Take from what is pending."""
        taken = bytes(self.pending[:length])
        del self.pending[:length]
        if not self.lost.done():
            self.transport.resume_reading()
        return taken

    @property
    def full(self) -> bool:
        """Whether it should be sent no more for now."""
        return self._full

    def join(self, other: End) -> None:
        """Let everything flow from each end to the other."""
        for end, counterpart in ((self, other), (other, self)):
            end._other = counterpart
        for end in (self, other):
            end._flow()

    def reset(self) -> None:
        """End it so that nobody takes it for complete."""
        if self._transport is not None and not self.lost.done():
            with contextlib.suppress(OSError):
                sock = self._transport.get_extra_info("socket")
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
            self._transport.abort()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """See `asyncio.Protocol`, as all below."""
        self._transport = cast(asyncio.Transport, transport)

    def data_received(self, data: bytes) -> None:
        if self._other is not None:
            self._other.transport.write(data)
            return
        self.pending += data
        if len(self.pending) > _PENDING_BYTES:
            self.transport.pause_reading()
        self._came.set()

    def eof_received(self) -> bool:
        self._ended = True
        self._came.set()
        if self._other is not None:
            self._pass_end()
        return True

    def pause_writing(self) -> None:
        self._full = True
        if self._other is not None:
            self._other.transport.pause_reading()

    def resume_writing(self) -> None:
        self._full = False
        if self._other is not None and not self._other.lost.done():
            self._other.transport.resume_reading()

    def connection_lost(self, error: Exception | None) -> None:
        self.lost.set_result(None)
        self._came.set()
        other = self._other
        if other is not None and not (self._ended and other._ended):
            other.reset()

    def _flow(self) -> None:
        assert self._other is not None
        if self.pending:
            self._other.transport.write(bytes(self.pending))
            self.pending.clear()
        if self.lost.done():
            self._other.reset()
        elif self._ended:
            self._pass_end()
        elif not self._other._full:
            self.transport.resume_reading()

    def _pass_end(self) -> None:
        assert self._other is not None
        if self._other._ended:  # in both directions now; what is still to be sent, is
            self.transport.close()
            self._other.transport.close()
        elif not self._other.lost.done():
            self._other.transport.write_eof()
