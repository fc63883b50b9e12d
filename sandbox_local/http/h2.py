"""HTTP/2 with prior knowledge on one connection."""

from __future__ import annotations

import asyncio
import logging
import os
from collections import deque

from h2.config import H2Configuration
from h2.connection import H2Connection
from h2.errors import ErrorCodes
from h2.events import (
    ConnectionTerminated,
    DataReceived,
    Event,
    RemoteSettingsChanged,
    RequestReceived,
    StreamEnded,
    StreamReset,
    WindowUpdated,
)
from h2.exceptions import ProtocolError
from h2.settings import SettingCodes, Settings
from hyperframe.frame import GoAwayFrame

from sandbox_local.http.body import Body
from sandbox_local.http.errors import ClientGone, HttpError
from sandbox_local.http.exchange import answer, dispose, outgoing_fields, pump
from sandbox_local.http.limits import Limits
from sandbox_local.http.link import Link
from sandbox_local.http.message import FileSlice, Handler, Headers, Request, Response, Tunnel

log = logging.getLogger(__name__)

_FRAME = 256 << 10
_FILE_STEP = 256 << 10
_UNREAD_REPLIES = 1 << 20
_RESET_SECONDS = 10.0
_BODYLESS = (204, 304)


class H2:
    """Answers the streams of a connection side by side."""

    def __init__(self, link: Link, handler: Handler, limits: Limits) -> None:
        """Speak HTTP/2 on `link`."""
        self._link = link
        self._handler = handler
        self._limits = limits
        self._loop = asyncio.get_running_loop()
        self._streams: dict[int, _Stream] = {}
        self._resets: deque[float] = deque(maxlen=limits.h2_resets + 1)
        self._unread_replies = 0
        self._stopping = False
        self._deaf = False
        self.connection = H2Connection(
            H2Configuration(
                client_side=False,
                header_encoding="latin-1",
                validate_outbound_headers=False,
                normalize_outbound_headers=False,
            )
        )
        self.connection.local_settings = Settings(
            client=False,
            initial_values={
                SettingCodes.MAX_CONCURRENT_STREAMS: limits.h2_streams,
                SettingCodes.INITIAL_WINDOW_SIZE: limits.h2_stream_window,
                SettingCodes.MAX_FRAME_SIZE: _FRAME,
                SettingCodes.MAX_HEADER_LIST_SIZE: limits.header_bytes,
            },
        )
        self.connection.max_inbound_frame_size = _FRAME
        self.connection.decoder.max_header_list_size = limits.header_bytes
        self.connection.initiate_connection()
        self.connection.increment_flow_control_window(
            limits.h2_connection_window - self.connection.inbound_flow_control_window
        )
        self.flush()
        self._link.deadline = self._loop.time() + limits.header_seconds  # for the client's SETTINGS

    # What the link calls.

    def receive(self, data: memoryview) -> None:
        if self._deaf:
            return
        try:
            events = self.connection.receive_data(bytes(data))
        except ProtocolError as error:
            log.debug("HTTP/2 connection of %s is malformed: %s", self._link.peer, error)
            self._hang_up()
            return
        self._reply()
        for event in events:
            self._on_event(event)
        self.flush()

    def ended(self) -> bool:
        return False

    def lost(self) -> None:
        self._deaf = True
        for stream in self._streams.values():
            stream.cancel()

    def expired(self) -> None:
        if self._deaf:
            self._link.abort()
        else:
            self.stop()

    def stop(self) -> None:
        if self._deaf:
            return
        if not self._stopping:
            self._stopping = True
            # Not close_connection(): after it h2 refuses to send the answers that are still being made.
            goaway = GoAwayFrame(0, last_stream_id=self.connection.highest_inbound_stream_id)
            self._link.write(goaway.serialize())
        if not self._streams:
            self._hang_up()

    # What a stream calls.

    def flush(self) -> None:
        """Hand what the protocol has produced to the network."""
        data = self.connection.data_to_send()
        if data:
            self._link.write(data)

    async def drain(self) -> None:
        """Wait until the network takes more."""
        await self._link.drain()

    def _reply(self) -> None:
        """Send what the protocol itself answers, to a PING for example.

        Answers of handlers wait while the client does not read, these can't: so they are counted.
        """
        replies = self.connection.data_to_send()
        self._unread_replies = self._unread_replies + len(replies) if self._link.unsent() else 0
        self._link.write(replies)
        if self._unread_replies > _UNREAD_REPLIES:
            log.warning("%s asks and does not listen", self._link.peer)
            self._link.abort()

    # Events.

    def _on_event(self, event: Event) -> None:
        if isinstance(event, RequestReceived):
            self._on_request(event)
        elif isinstance(event, DataReceived):
            self._on_data(event)
        elif isinstance(event, StreamEnded):
            if (stream := self._streams.get(_id(event))) is not None:
                stream.body.end()
        elif isinstance(event, StreamReset):
            self._on_reset(event)
        elif isinstance(event, (WindowUpdated, RemoteSettingsChanged)):
            for stream in self._streams.values():
                stream.window_opened()
            self._arm()
        elif isinstance(event, ConnectionTerminated):
            self._hang_up()

    def _on_request(self, event: RequestReceived) -> None:
        stream_id = _id(event)
        if self._stopping:
            self.connection.reset_stream(stream_id, ErrorCodes.REFUSED_STREAM)
            return
        stream = _Stream(self, stream_id)
        self._streams[stream_id] = stream
        self._link.deadline = None
        stream.task = self._loop.create_task(self._serve(stream, event))
        stream.task.add_done_callback(lambda task: self._served(stream, task))

    def _on_data(self, event: DataReceived) -> None:
        stream = self._streams.get(_id(event))
        size = event.flow_controlled_length or 0
        if stream is None or stream.finished:
            self.acknowledge(size, _id(event))
            return
        data = bytes(event.data or b"")
        if size > len(data):
            self.acknowledge(size - len(data), stream.stream_id)
        if data:
            stream.body.feed(data)

    def acknowledge(self, size: int, stream_id: int) -> None:
        """Let the client send as many bytes more."""
        if not self._deaf:
            self.connection.acknowledge_received_data(size, stream_id)
            self.flush()

    def _on_reset(self, event: StreamReset) -> None:
        stream = self._streams.get(_id(event))
        if stream is not None:
            stream.cancel()
        now = self._loop.time()
        self._resets.append(now)
        if len(self._resets) > self._limits.h2_resets and now - self._resets[0] < _RESET_SECONDS:
            log.warning("%s resets streams faster than is sane", self._link.peer)
            self.connection.close_connection(ErrorCodes.ENHANCE_YOUR_CALM)
            self._hang_up()

    def _hang_up(self) -> None:
        """End the connection; swallow for a while what the client still sends, so that it gets to read the end."""
        self._deaf = True
        self.flush()
        for stream in self._streams.values():
            stream.cancel()
        self._link.finish()
        self._link.deadline = self._loop.time() + self._limits.linger_seconds

    # Answering.

    async def _serve(self, stream: _Stream, event: RequestReceived) -> None:
        try:
            request = self._request(stream, event)
        except HttpError as error:
            await stream.respond("GET", Response.error(error))
            return
        response = await answer(self._handler, request)
        try:
            if isinstance(response.body, Tunnel):
                response = Response.error(HttpError(501, "tunnels need HTTP/1.1"))
            await stream.respond(request.method, response)
        finally:
            await dispose(response)

    def _request(self, stream: _Stream, event: RequestReceived) -> Request:
        pseudo: dict[str, str] = {}
        headers = Headers()
        count = 0
        for name, value in event.headers or ():
            field = str(name)
            if field.startswith(":"):
                pseudo[field] = str(value)
            else:
                count += 1
                headers.add(field, str(value))
        if count > self._limits.header_fields:
            raise HttpError(431, f"more than {self._limits.header_fields} header fields")
        if ":authority" in pseudo:
            headers.set("host", pseudo[":authority"])
        try:
            target = pseudo.get(":path", "").encode("latin-1").decode("utf-8")
        except UnicodeDecodeError:
            raise HttpError(400, "the request target is not valid UTF-8") from None
        if len(target) > self._limits.target_bytes:
            raise HttpError(414, f"the request target is longer than {self._limits.target_bytes} bytes")
        if not target.startswith("/") and target != "*":
            raise HttpError(400, "the request target must be a path")
        length = headers.get("content-length")
        stream.body.length = int(length) if length is not None else None
        return Request(pseudo[":method"], target, headers, stream.body, "2", self._link.peer)

    def _served(self, stream: _Stream, task: asyncio.Task[None]) -> None:
        stream.finished = True
        del self._streams[stream.stream_id]
        if not self._deaf:
            error = None if task.cancelled() else task.exception()
            if error is not None and not isinstance(error, ClientGone):
                log.error("stream of %s dropped", self._link.peer, exc_info=error)
            self._end_stream(stream, failed=task.cancelled() or error is not None)
            if self._stopping and not self._streams:
                self._hang_up()
            self._arm()

    def _end_stream(self, stream: _Stream, *, failed: bool) -> None:
        """Leave no stream half open."""
        stream.body.discard()
        if not stream.reset and (failed or not stream.body.complete):
            code = ErrorCodes.INTERNAL_ERROR if failed else ErrorCodes.NO_ERROR
            try:
                self.connection.reset_stream(stream.stream_id, code)
            except ProtocolError:
                pass  # closed in the meantime
            self.flush()

    def _arm(self) -> None:
        """Start the time that the connection may be idle, if it is."""
        if not self._streams and not self._deaf:
            self._link.deadline = self._loop.time() + self._limits.idle_seconds


class _Stream:
    """One request and the way back of its answer, within the windows that the client gives."""

    def __init__(self, owner: H2, stream_id: int) -> None:
        self.stream_id = stream_id
        self.body = Body(on_taken=self._on_taken)
        self.task: asyncio.Task[None] | None = None
        self.finished = False
        self.reset = False
        self._owner = owner
        self._connection = owner.connection
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
        await self._owner.drain()
        if method == "HEAD" or response.status in _BODYLESS or body == b"":
            await self._finish([], response.trailers)
        elif isinstance(body, bytes):
            await self._finish([body], response.trailers)
        elif isinstance(body, FileSlice):
            await self._send_file(body)
        elif not isinstance(body, Tunnel):
            await self._finish(await pump(body, self), response.trailers)

    def send(self, pieces: list[bytes]) -> None:
        self._queue(pieces)
        self._owner.flush()

    async def drain(self) -> None:
        await self._sent.wait()
        await self._owner.drain()

    def window_opened(self) -> None:
        """The client takes more."""
        if self._outbox and not self.reset:
            self._emit()
            self._owner.flush()

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
        if self._outbox:
            self._owner.flush()
            await self._sent.wait()
        if trailers is not None:
            self._connection.send_headers(
                self.stream_id, outgoing_fields(trailers, date=False), end_stream=True
            )
        elif not ends_with_head:
            self._connection.end_stream(self.stream_id)
        self._owner.flush()
        await self._owner.drain()

    def _queue(self, pieces: list[bytes], *, end_stream: bool = False) -> None:
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
        self._owner.acknowledge(size, self.stream_id)


def _id(event: RequestReceived | DataReceived | StreamEnded | StreamReset) -> int:
    assert event.stream_id is not None
    return event.stream_id
