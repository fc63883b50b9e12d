"""One request on an HTTP/2 connection, and the way back of its answer."""

from __future__ import annotations

import asyncio
import os
from collections import deque

from h2.connection import H2Connection

from sandbox_local.http.body import Body
from sandbox_local.http.errors import ClientGone
from sandbox_local.http.exchange import outgoing_fields, pump
from sandbox_local.http.link import Link
from sandbox_local.http.message import FileSlice, Headers, Response, Tunnel

_FILE_STEP = 256 << 10
_BODYLESS = (204, 304)


def flush(connection: H2Connection, link: Link) -> None:
    """Hand what the protocol has produced to the network."""
    data = connection.data_to_send()
    if data:
        link.write(data)


class Stream:
    """One request and the way back of its answer, within the windows that the client gives."""

    def __init__(self, connection: H2Connection, link: Link, stream_id: int) -> None:
        """Make a stream of a connection."""
        self.stream_id = stream_id
        self.body = Body()
        self.body.on_taken = self._on_taken
        self.task: asyncio.Task[None] | None = None
        self.reset = False
        self._connection = connection
        self._link = link
        self._head: list[tuple[bytes, bytes]] = []
        self._outbox: deque[memoryview] = deque()
        self._sent = asyncio.Event()
        self._sent.set()

    def cancel(self) -> None:
        """The client has reset the stream, or is gone."""
        self.reset = True
        if self.task is not None:
            self.task.cancel()

    async def respond(self, method: str, response: Response) -> None:
        """Send an answer."""
        fields = response.headers
        body = response.body
        if isinstance(body, (bytes, FileSlice)) and response.status not in _BODYLESS:
            fields.set("content-length", str(len(body) if isinstance(body, bytes) else body.length))
        self._head = [(b":status", b"%d" % response.status), *outgoing_fields(fields)]
        if method == "HEAD" or response.status in _BODYLESS or body == b"":
            await self._finish([], response.trailers)
        elif isinstance(body, bytes):
            await self._link.drain()
            await self._finish([body], response.trailers)
        elif isinstance(body, FileSlice):
            await self._send_file(body)
        elif not isinstance(body, Tunnel):
            await self._finish(await pump(body, self), response.trailers)

    def send(self, pieces: list[bytes]) -> None:
        self._queue(pieces)
        flush(self._connection, self._link)

    async def drain(self) -> None:
        await self._sent.wait()
        if self.reset:
            raise ClientGone(self._link.peer)
        await self._link.drain()

    def window_opened(self) -> None:
        """The client takes more."""
        if self._outbox and not self.reset:
            self._emit()
            flush(self._connection, self._link)

    async def _send_file(self, file: FileSlice) -> None:
        offset, end = file.offset, file.offset + file.length
        while offset < end:
            chunk = os.pread(file.fd, min(_FILE_STEP, end - offset), offset)
            if not chunk:
                raise EOFError(f"the file ends at {offset}, expected {end}")
            offset += len(chunk)
            self.send([chunk])
            await self.drain()
            await asyncio.sleep(0)
        await self._finish([], None)

    async def _finish(self, pieces: list[bytes], trailers: Headers | None) -> None:
        ends_with_head = not pieces and trailers is None and bool(self._head)
        self._queue(pieces, end_stream=ends_with_head)
        if self._outbox or self.reset:
            flush(self._connection, self._link)
            await self.drain()
        if trailers is not None:
            self._connection.send_headers(
                self.stream_id, outgoing_fields(trailers, date=False), end_stream=True
            )
        elif not ends_with_head:
            self._connection.end_stream(self.stream_id)
        flush(self._connection, self._link)
        await self._link.drain()

    def _queue(self, pieces: list[bytes], *, end_stream: bool = False) -> None:
        if self.reset:
            return
        if self._head:
            self._connection.send_headers(self.stream_id, self._head, end_stream=end_stream)
            self._head = []
        if pieces:
            self._outbox.append(memoryview(pieces[0] if len(pieces) == 1 else b"".join(pieces)))
            self._emit()

    def _emit(self) -> None:
        """Send as much of the outbox as the windows allow."""
        connection = self._connection
        while self._outbox:
            piece = self._outbox[0]
            room = min(
                connection.local_flow_control_window(self.stream_id), connection.max_outbound_frame_size
            )
            if room <= 0:
                self._sent.clear()
                return
            connection.send_data(self.stream_id, piece[:room])
            if len(piece) > room:
                self._outbox[0] = piece[room:]
            else:
                self._outbox.popleft()
        self._sent.set()

    def _on_taken(self, size: int) -> None:
        self._connection.acknowledge_received_data(size, self.stream_id)
        flush(self._connection, self._link)
