"""The bounds of the HTTP engine, all of them."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Limits:
    """What one server accepts and how long it waits.

    Attributes:
        connections: Open connections; one more is answered 503 and closed.
        header_bytes: Names and values of all header fields of one request; more is 431.
        header_fields: Header fields of one request; more is 431.
        target_bytes: Length of a request target; more is 414.
        header_seconds: From the first byte of a request's head to its last; later is 408.
        idle_seconds: How long a connection may stay open between requests.
        linger_seconds: How long the rest of a body nobody read is still swallowed, so that the client gets to
            read the answer instead of a reset.
        pipelined: Requests that may wait on one HTTP/1.1 connection behind the one being answered.
        body_buffer: Bytes of a request body that are read ahead of the handler.
        write_buffer: Bytes of an answer that may wait for the client to read.
        h2_streams: Concurrent requests on one HTTP/2 connection.
        h2_stream_window: Flow-control window of one HTTP/2 stream, in bytes.
        h2_connection_window: Flow-control window of one HTTP/2 connection, in bytes.
        h2_resets: Streams a client may reset within ten seconds; one more ends the connection.
    """

    connections: int = 4096
    header_bytes: int = 64 << 10
    header_fields: int = 100
    target_bytes: int = 16 << 10
    header_seconds: float = 10.0
    idle_seconds: float = 300.0
    linger_seconds: float = 2.0
    pipelined: int = 100
    body_buffer: int = 512 << 10
    write_buffer: int = 256 << 10
    h2_streams: int = 256
    h2_stream_window: int = 1 << 20
    h2_connection_window: int = 32 << 20
    h2_resets: int = 500
