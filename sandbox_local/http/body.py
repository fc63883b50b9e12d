"""The body of a request, as it arrives."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable

from sandbox_local.http.errors import BodyTooLarge
from sandbox_local.threads import run_to_end, write_all


class Body(AsyncIterator[bytes]):
    """An asynchronous iterator over the bytes of a request body, in pieces as the network brings them.

    What is not taken is not read from the network for long: the connection stops reading when too much waits.
    Iteration raises `HttpError` when the client breaks the framing in the middle.

    Attributes:
        length: Length in bytes that the client announced, or None.
        received: Bytes that have arrived.
        buffered: Bytes that have arrived and were not taken yet.
        complete: Whether the last byte has arrived.
        on_taken: Called with the number of bytes that the reader took, each time.
        on_wanted: Called once, when the reader first has to wait for bytes.
        on_complete: Called when the last byte has arrived.
        on_save: Moves what has not arrived from the network straight to a descriptor, and ends the body; None
            where the framing forbids that.
    """

    def __init__(self, length: int | None = None) -> None:
        """Make a body of which nothing has arrived.

        Args:
            length: Announced length in bytes, if any.
        """
        self.length = length
        self.received = 0
        self.buffered = 0
        self.complete = False
        self.on_taken: Callable[[int], None] | None = None
        self.on_wanted: Callable[[], None] | None = None
        self.on_complete: Callable[[], None] | None = None
        self.on_save: Callable[[int], Awaitable[None]] | None = None
        self._chunks: deque[bytes] = deque()
        self._error: Exception | None = None
        self._waiter: asyncio.Future[None] | None = None

    def __aiter__(self) -> Body:
        return self

    async def __anext__(self) -> bytes:
        while not self._chunks:
            if self._error is not None:
                raise self._error
            if self.complete:
                raise StopAsyncIteration
            if self.on_wanted is not None:
                self.on_wanted()
                self.on_wanted = None
            self._waiter = asyncio.get_running_loop().create_future()
            await self._waiter
        chunk = self._chunks.popleft()
        self._took(len(chunk))
        return chunk

    async def read(self, limit: int) -> bytes:
        """Read the whole body.

        Args:
            limit: The most bytes to accept.

        Returns:
            Everything that was not taken before.

        Raises:
            BodyTooLarge: The body is longer than `limit`.
            HttpError: The client broke the framing.
        """
        if self.length is not None and self.length > limit:
            raise BodyTooLarge(limit)
        chunks: list[bytes] = []
        size = 0
        async for chunk in self:
            size += len(chunk)
            if size > limit:
                raise BodyTooLarge(limit)
            chunks.append(chunk)
        return chunks[0] if len(chunks) == 1 else b"".join(chunks)

    async def save(self, fd: int) -> None:
        """Write to a file all that was not taken before, off the event loop.

        Raises:
            HttpError: The client broke the framing.
            ClientGone: The client went away.
            OSError: The file can't be written.
        """
        async for chunk in self:
            await run_to_end(write_all, fd, chunk, *self.take())
            if self.on_save is not None and not self.complete:
                await self.on_save(fd)

    def take(self) -> list[bytes]:
        """Everything that waits here."""
        chunks = list(self._chunks)
        self._chunks.clear()
        if self.buffered:
            self._took(self.buffered)
        return chunks

    def discard(self) -> None:
        """Drop what waits here: nobody will read it."""
        self.take()

    def feed(self, chunk: bytes) -> None:
        """Append bytes that arrived."""
        if chunk:
            self._chunks.append(chunk)
            self.received += len(chunk)
            self.buffered += len(chunk)
            self._wake()

    def end(self) -> None:
        """Note that the last byte has arrived."""
        self.complete = True
        self._wake()
        if self.on_complete is not None:
            self.on_complete()

    def fail(self, error: Exception) -> None:
        """Note that no more will arrive; the reader gets `error` after what has arrived."""
        self._error = error
        self._wake()

    def _took(self, size: int) -> None:
        self.buffered -= size
        if self.on_taken is not None:
            self.on_taken(size)

    def _wake(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)
