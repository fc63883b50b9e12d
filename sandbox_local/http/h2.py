"""HTTP/2 with prior knowledge on one connection."""

from __future__ import annotations

import asyncio
import logging
import re
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

from sandbox_local.http.errors import ClientGone, HttpError
from sandbox_local.http.exchange import answer, dispose
from sandbox_local.http.h2_stream import Stream, flush
from sandbox_local.http.limits import Limits
from sandbox_local.http.link import Link
from sandbox_local.http.message import Handler, Headers, Request, Response, Tunnel

log = logging.getLogger(__name__)

_FRAME = 256 << 10
_UNREAD_REPLIES = 1 << 20
_RESET_SECONDS = 10.0

# Both may become part of the first line of an HTTP/1.1 request, which spaces would take apart.
_METHOD = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]{1,32}")
_TARGET = re.compile(r"\*|/[^\x00-\x20\x7f]*")


class H2:
    """Answers the streams of a connection side by side."""

    half_open = False

    def __init__(self, link: Link, handler: Handler, limits: Limits) -> None:
        """Speak HTTP/2 on `link`."""
        self._link = link
        self._handler = handler
        self._limits = limits
        self._loop = asyncio.get_running_loop()
        self._streams: dict[int, Stream] = {}
        self._resets: deque[float] = deque(maxlen=limits.h2_resets + 1)
        self._unread_replies = 0
        self._stopping = False
        self._deaf = False
        self._connection = H2Connection(
            H2Configuration(
                client_side=False,
                header_encoding="latin-1",
                validate_outbound_headers=False,
                normalize_outbound_headers=False,
            )
        )
        self._connection.local_settings = Settings(
            client=False,
            initial_values={
                SettingCodes.MAX_CONCURRENT_STREAMS: limits.h2_streams,
                SettingCodes.INITIAL_WINDOW_SIZE: limits.h2_stream_window,
                SettingCodes.MAX_FRAME_SIZE: _FRAME,
                SettingCodes.MAX_HEADER_LIST_SIZE: limits.header_bytes,
            },
        )
        self._connection.max_inbound_frame_size = _FRAME
        self._connection.decoder.max_header_list_size = limits.header_bytes
        self._connection.initiate_connection()
        self._connection.increment_flow_control_window(
            limits.h2_connection_window - self._connection.inbound_flow_control_window
        )
        flush(self._connection, self._link)
        self._link.deadline = self._loop.time() + limits.header_seconds  # for the client's SETTINGS

    # What the link calls.

    def receive(self, data: memoryview) -> None:
        if self._deaf:
            return
        try:
            events = self._connection.receive_data(bytes(data))
        except ProtocolError as error:
            log.debug("HTTP/2 connection of %s is malformed: %s", self._link.peer, error)
            self._hang_up()
            return
        self._reply()
        for event in events:
            self._on_event(event)
        flush(self._connection, self._link)

    def ended(self) -> None:
        pass

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
            goaway = GoAwayFrame(0, last_stream_id=self._connection.highest_inbound_stream_id)
            self._link.write(goaway.serialize())
        if not self._streams:
            self._hang_up()

    def running(self) -> list[asyncio.Task[None]]:
        return [stream.task for stream in self._streams.values() if stream.task is not None]

    def _reply(self) -> None:
        """Send what the protocol itself answers, to a PING for example.

        Answers of handlers wait while the client does not read, these can't: so they are counted.
        """
        replies = self._connection.data_to_send()
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
        elif isinstance(event, WindowUpdated) and event.stream_id:
            if (stream := self._streams.get(event.stream_id)) is not None:
                stream.window_opened()
        elif isinstance(event, (WindowUpdated, RemoteSettingsChanged)):
            for stream in self._streams.values():
                stream.window_opened()
            if isinstance(event, RemoteSettingsChanged):
                self._arm()
        elif isinstance(event, ConnectionTerminated):
            self._hang_up()

    def _on_request(self, event: RequestReceived) -> None:
        stream_id = _id(event)
        if self._stopping:
            self._connection.reset_stream(stream_id, ErrorCodes.REFUSED_STREAM)
            return
        stream = Stream(self._connection, self._link, stream_id)
        self._streams[stream_id] = stream
        self._link.deadline = None
        stream.task = self._loop.create_task(self._serve(stream, event))
        stream.task.add_done_callback(lambda task: self._served(stream, task))

    def _on_data(self, event: DataReceived) -> None:
        stream = self._streams.get(_id(event))
        size = event.flow_controlled_length or 0
        if stream is None:
            self._connection.acknowledge_received_data(size, _id(event))
            return
        data = bytes(event.data or b"")
        if size > len(data):
            self._connection.acknowledge_received_data(size - len(data), stream.stream_id)
        stream.body.feed(data)

    def _on_reset(self, event: StreamReset) -> None:
        stream = self._streams.get(_id(event))
        if stream is not None:
            stream.cancel()
        now = self._loop.time()
        self._resets.append(now)
        if len(self._resets) > self._limits.h2_resets and now - self._resets[0] < _RESET_SECONDS:
            log.warning("%s resets streams faster than is sane", self._link.peer)
            self._connection.close_connection(ErrorCodes.ENHANCE_YOUR_CALM)
            self._hang_up()

    def _hang_up(self) -> None:
        """End the connection; swallow what the client still sends for a while, so that it sees the end."""
        self._deaf = True
        flush(self._connection, self._link)
        for stream in self._streams.values():
            stream.cancel()
        self._link.finish()
        self._link.deadline = self._loop.time() + self._limits.linger_seconds

    # Answering.

    async def _serve(self, stream: Stream, event: RequestReceived) -> None:
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

    def _request(self, stream: Stream, event: RequestReceived) -> Request:
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
        if not _TARGET.fullmatch(target):
            raise HttpError(400, "the request target must be a path, without spaces")
        if not _METHOD.fullmatch(pseudo[":method"]):
            raise HttpError(400, "the method is no token")
        length = headers.get("content-length")
        stream.body.length = int(length) if length is not None else None
        return Request(pseudo[":method"], target, headers, stream.body, "2", self._link.peer)

    def _served(self, stream: Stream, task: asyncio.Task[None]) -> None:
        del self._streams[stream.stream_id]
        error = None if task.cancelled() else task.exception()
        over = isinstance(error, ClientGone) or (self._deaf and isinstance(error, ProtocolError))
        if error is not None and not over:
            trace = None if isinstance(error, EOFError) else error  # a file that got shorter, as in h1
            log.error("stream of %s dropped: %s", self._link.peer, error, exc_info=trace)
        if not self._deaf:
            self._end_stream(stream, failed=task.cancelled() or error is not None)
            if self._stopping and not self._streams:
                self._hang_up()
            self._arm()

    def _end_stream(self, stream: Stream, *, failed: bool) -> None:
        """Leave no stream half open."""
        stream.body.discard()
        if not stream.reset and (failed or not stream.body.complete):
            code = ErrorCodes.INTERNAL_ERROR if failed else ErrorCodes.NO_ERROR
            try:
                self._connection.reset_stream(stream.stream_id, code)
            except ProtocolError:
                pass  # closed in the meantime
            flush(self._connection, self._link)

    def _arm(self) -> None:
        """Start the time that the connection may be idle, if it is."""
        if not self._streams and not self._deaf:
            self._link.deadline = self._loop.time() + self._limits.idle_seconds


def _id(event: RequestReceived | DataReceived | StreamEnded | StreamReset) -> int:
    assert event.stream_id is not None
    return event.stream_id
