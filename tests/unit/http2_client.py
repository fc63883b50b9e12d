"""A small blocking HTTP/2 client that can do what well-behaved ones do not."""

from __future__ import annotations

import socket
from collections.abc import Callable
from dataclasses import dataclass, field

from h2.config import H2Configuration
from h2.connection import ConnectionState, H2Connection
from h2.events import (
    ConnectionTerminated,
    DataReceived,
    RemoteSettingsChanged,
    ResponseReceived,
    StreamEnded,
    StreamReset,
    TrailersReceived,
)
from h2.settings import SettingCodes

from tests.unit.engine_testbed import WAIT


@dataclass
class Http2Answer:
    """What has come of a response so far."""

    status: int = 0
    headers: dict[str, str] = field(default_factory=dict)
    trailers: dict[str, str] = field(default_factory=dict)
    body: bytes = b""
    data_frames: int = 0
    complete: bool = False
    was_reset: bool = False


class Http2:
    """One connection with prior knowledge. Window is given back as data arrive, unless `window` fixes it."""

    def __init__(self, port: int, *, window: int | None = None, first_send: int | None = None) -> None:
        self.connection = H2Connection(H2Configuration(client_side=True, header_encoding="utf-8"))
        self.connection.initiate_connection()
        if window is None:
            self.connection.update_settings({SettingCodes.INITIAL_WINDOW_SIZE: 1 << 20})
            self.connection.increment_flow_control_window(1 << 24)
        self.goaway: int | None = None
        self.closed = False
        self._greeted = False
        self._unread = bytearray()
        self._fixed = window is not None
        self._answers: dict[int, Http2Answer] = {}
        self.sock = socket.create_connection(("127.0.0.1", port), timeout=WAIT)
        self.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        data = self.connection.data_to_send()
        self.sock.sendall(data[:first_send])
        if first_send is not None:
            self.sock.sendall(data[first_send:])

        while not self._greeted:
            self.receive()

    def __enter__(self) -> Http2:
        return self

    def __exit__(self, *_: object) -> None:
        self.sock.close()

    def send(
        self,
        method: str,
        path: str,
        *,
        headers: dict[str, str] | None = None,
        body: bytes = b"",
        end: bool = True,
    ) -> int:
        """Send a request with a small body; returns its stream."""
        stream = self.connection.get_next_available_stream_id()
        fields = [(":method", method), (":scheme", "http"), (":authority", "h"), (":path", path)]
        self.connection.send_headers(
            stream, fields + list((headers or {}).items()), end_stream=end and not body
        )
        if body:
            self.connection.send_data(stream, body, end_stream=end)
        self._answers[stream] = Http2Answer()
        self.flush()
        return stream

    def request(self, path: str) -> None:
        """Send a GET."""
        self.send("GET", path)

    def ask(
        self, method: str, path: str, *, headers: dict[str, str] | None = None, body: bytes = b""
    ) -> Http2Answer:
        """Send a request and wait for all of its answer."""
        return self.answer(self.send(method, path, headers=headers, body=body))

    def answer(self, stream: int) -> Http2Answer:
        """Wait for all of an answer."""
        self._wait(lambda: self._answers[stream].complete)
        return self._answers[stream]

    def wait_for_body(self, stream: int, size: int) -> bool:
        """Wait for so many bytes of an answer's body; whether there were exactly as many then."""
        self._wait(lambda: len(self._answers[stream].body) >= size)
        return len(self._answers[stream].body) == size

    def upload(self, stream: int, size: int) -> int:
        """Send as many bytes as the server takes, at most `size`; returns how many."""
        sent = 0
        self.sock.settimeout(0.5)
        try:
            while sent < size:
                room = min(
                    self.connection.local_flow_control_window(stream),
                    self.connection.max_outbound_frame_size,
                    size - sent,
                )
                if room == 0:
                    self.receive()
                    continue
                self.connection.send_data(stream, bytes(room))
                sent += room
                self.flush()
        except TimeoutError:
            pass
        finally:
            self.sock.settimeout(WAIT)
        return sent

    def upload_now(self, stream: int, data: bytes) -> None:
        """Send a piece of a body that is no longer than the window."""
        size = self.connection.max_outbound_frame_size
        for start in range(0, len(data), size):
            self.connection.send_data(stream, data[start : start + size])
        self.flush()

    def wait_until_closed(self) -> bool:
        """Wait for the server to close the connection."""
        self._wait(lambda: False)
        return self.closed

    def end(self, stream: int) -> None:
        """End the body of a request."""
        self.connection.end_stream(stream)
        self.flush()

    def reset(self, stream: int) -> None:
        """Abandon a request."""
        self.connection.reset_stream(stream)
        self.flush()

    def receive(self) -> None:
        """Take what the server sends next."""
        data = self.sock.recv(1 << 18)
        if not data:
            self.closed = True
            return
        self._unread += data
        while len(self._unread) >= 9 and len(self._unread) >= (
            end := 9 + int.from_bytes(self._unread[:3], "big")
        ):
            self._take(bytes(self._unread[:end]))
            del self._unread[:end]
        self.flush()

    def _wait(self, condition: Callable[[], bool]) -> None:
        while not condition() and not self.closed:
            self.receive()

    def _take(self, frame: bytes) -> None:
        for event in self.connection.receive_data(frame):
            if isinstance(event, ResponseReceived):
                answer = self._answers[event.stream_id]
                answer.headers = dict(event.headers)  # type: ignore[arg-type]
                answer.status = int(answer.headers.pop(":status"))
            elif isinstance(event, DataReceived):
                answer = self._answers[event.stream_id]
                answer.body += event.data
                answer.data_frames += 1
                if not self._fixed:
                    self.connection.acknowledge_received_data(event.flow_controlled_length, event.stream_id)
            elif isinstance(event, TrailersReceived):
                self._answers[event.stream_id].trailers = dict(event.headers)  # type: ignore[arg-type]
            elif isinstance(event, StreamEnded):
                self._answers[event.stream_id].complete = True
            elif isinstance(event, StreamReset):
                self._answers[event.stream_id].complete = True
                self._answers[event.stream_id].was_reset = True
            elif isinstance(event, ConnectionTerminated):
                self.goaway = int(event.error_code or 0)
                # h2 takes a GOAWAY for the end; it only says that no new streams are welcome.
                self.connection.state_machine.state = ConnectionState.CLIENT_OPEN
            elif isinstance(event, RemoteSettingsChanged):
                self._greeted = True

    def flush(self) -> None:
        """Send what h2 has to send."""
        self.sock.sendall(self.connection.data_to_send())
