"""A server that sends many small events of output as fast as they are taken, however it is asked.

A command that prints small lines will not do to compare clients by events: a server joins what lies in the
pipe, so each client would get another number of them. This one has all bytes of the answer ready, in Connect
with JSON (which the official client asks for), Connect with protobuf, and gRPC over HTTP/2. Each event is a
chunk or a DATA frame of its own, as from servers that flush each event, but those that are ready go out
together: how fast they are then taken is up to the client. It sends these whatever stream is asked for.

Usage: python -m sides.standin COUNT; it prints its port, and ends with its standard input.
"""

from __future__ import annotations

import base64
import io
import json
import os
import socket
import struct
import sys
import threading

from sandbox_sync_rpc import process_pb2

_EVENT = "event of output\n"
_PREFIX = struct.Struct(">BI")
_WINDOW = 65535  # of HTTP/2, until the other side says otherwise
_DATA, _HEADERS, _RESET, _SETTINGS, _PING, _WINDOW_UPDATE = 0, 1, 3, 4, 6, 8
_ACK = _END_STREAM = 1
_END_HEADERS = 4
# HPACK, without its compression: status 200 and the type of the content; a status of gRPC.
_HEAD = b"\x88\x0f\x10\x10application/grpc"
_TRAILERS = b"\x00\x0bgrpc-status\x010"


def _messages() -> tuple[bytes, bytes, bytes]:
    """The first event, one of output, and the last one, in protobuf."""
    start, data, end = (process_pb2.StartResponse() for _ in range(3))
    start.event.start.pid = 7
    data.event.data.stdout = _EVENT.encode()
    end.event.end.exited = True
    end.event.end.status = "exit status 0"
    return start.SerializeToString(), data.SerializeToString(), end.SerializeToString()


def _json_messages() -> tuple[bytes, bytes, bytes]:
    data = base64.b64encode(_EVENT.encode()).decode()
    events = (
        {"start": {"pid": 7}},
        {"data": {"stdout": data}},
        {"end": {"exited": True, "status": "exit status 0"}},
    )
    start, output, end = (json.dumps({"event": event}).encode() for event in events)
    return start, output, end


def _connect_answer(kind: str, messages: tuple[bytes, bytes, bytes], count: int) -> bytes:
    start, data, end = (_chunk(_PREFIX.pack(0, len(message)) + message) for message in messages)
    last = _chunk(_PREFIX.pack(2, 2) + b"{}")
    head = f"HTTP/1.1 200 OK\r\nContent-Type: {kind}\r\nTransfer-Encoding: chunked\r\n\r\n".encode()
    return head + start + data * count + end + last + b"0\r\n\r\n"


def _chunk(data: bytes) -> bytes:
    return b"%x\r\n%b\r\n" % (len(data), data)


class _Answers:
    def __init__(self, count: int) -> None:
        self.count = count
        self.plain = {
            kind: _connect_answer(kind, messages, count)
            for kind, messages in (
                ("application/connect+proto", _messages()),
                ("application/connect+json", _json_messages()),
            )
        }
        self.first, data, self.last = (_PREFIX.pack(0, len(message)) + message for message in _messages())
        self.size = len(data)  # of one event, as flow control counts it
        self.frames = bytearray(_frame(_DATA, 0, 0, data) * count)

    def serve(self, sock: socket.socket) -> None:
        """Answer whatever comes over a connection, until it ends."""
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        with sock, sock.makefile("rb") as reader:
            try:
                if reader.peek(3)[:3] == b"PRI":
                    reader.read(24)
                    _Grpc(sock, reader, self).serve()
                else:
                    while self._answer(sock, reader):
                        pass
            except (OSError, EOFError):
                pass  # the client has gone

    def _answer(self, sock: socket.socket, reader: io.BufferedReader) -> bool:
        read = reader.readline
        if not read():
            return False
        headers: dict[str, str] = {}
        while (line := read().strip()) != b"":
            name, _, value = line.decode("latin-1").partition(":")
            headers[name.lower()] = value.strip()
        if "content-length" in headers:
            reader.read(int(headers["content-length"]))
        elif headers.get("transfer-encoding") == "chunked":
            while size := int(read(), 16):
                reader.read(size + 2)
            read()
        unknown = b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n"
        sock.sendall(self.plain.get(headers.get("content-type", ""), unknown))
        return True


class _Grpc:
    """As much of HTTP/2 as it takes to send one answer after another over a connection."""

    def __init__(self, sock: socket.socket, reader: io.BufferedReader, answers: _Answers) -> None:
        self._sock, self._reader, self._answers = sock, reader, answers
        self._initial = self._connection = _WINDOW
        self._streams: dict[int, int] = {}
        self._asked: list[int] = []

    def serve(self) -> None:
        self._sock.sendall(_frame(_SETTINGS, 0, 0, b""))
        while True:
            while not self._asked:
                self._take()
            self._send(self._asked.pop(0))

    def _send(self, stream: int) -> None:
        answers, size = self._answers, self._answers.size
        self._sock.sendall(_frame(_HEADERS, _END_HEADERS, stream, _HEAD))
        self._wait_for(stream, len(answers.first))
        self._sock.sendall(_frame(_DATA, 0, stream, answers.first))
        length = size + 9
        frames = answers.frames[:]
        for place, byte in zip(range(5, 9), stream.to_bytes(4, "big"), strict=True):
            frames[place::length] = bytes([byte]) * answers.count
        sent = 0
        with memoryview(frames) as view:
            while sent < answers.count and stream in self._streams:
                window = min(self._connection, self._streams[stream])
                number = min(window // size, answers.count - sent)
                if not number:
                    self._take()
                    continue
                self._connection -= number * size
                self._streams[stream] -= number * size
                self._sock.sendall(view[sent * length : (sent + number) * length])
                sent += number
        self._wait_for(stream, len(answers.last))
        if self._streams.pop(stream, None) is not None:
            self._sock.sendall(
                _frame(_DATA, 0, stream, answers.last)
                + _frame(_HEADERS, _END_HEADERS | _END_STREAM, stream, _TRAILERS)
            )

    def _wait_for(self, stream: int, size: int) -> None:
        while stream in self._streams and min(self._connection, self._streams[stream]) < size:
            self._take()
        if stream in self._streams:
            self._connection -= size
            self._streams[stream] -= size

    def _take(self) -> None:
        """Take one frame."""
        head = self._read(9)
        kind, flags = head[3], head[4]
        stream = int.from_bytes(head[5:9], "big") & 0x7FFFFFFF
        body = self._read(int.from_bytes(head[:3], "big"))
        if kind == _SETTINGS and not flags & _ACK:
            for at in range(0, len(body), 6):
                name, value = struct.unpack_from(">HI", body, at)
                if name == 4:
                    self._streams = {
                        each: window + value - self._initial for each, window in self._streams.items()
                    }
                    self._initial = value
            self._sock.sendall(_frame(_SETTINGS, _ACK, 0, b""))
        elif kind == _PING and not flags & _ACK:
            self._sock.sendall(_frame(_PING, _ACK, 0, body))
        elif kind == _WINDOW_UPDATE:
            more = int.from_bytes(body, "big")
            if stream:
                if stream in self._streams:
                    self._streams[stream] += more
            else:
                self._connection += more
        elif kind == _RESET:
            self._streams.pop(stream, None)
        elif kind == _HEADERS:
            self._streams[stream] = self._initial
        if kind in (_HEADERS, _DATA):
            if kind == _DATA and body:
                grown = len(body).to_bytes(4, "big")
                self._sock.sendall(_frame(_WINDOW_UPDATE, 0, 0, grown))
            if flags & _END_STREAM:
                self._asked.append(stream)

    def _read(self, size: int) -> bytes:
        data = self._reader.read(size)
        if len(data) < size:
            raise EOFError
        return data


def _frame(kind: int, flags: int, stream: int, body: bytes) -> bytes:
    return len(body).to_bytes(3, "big") + bytes([kind, flags]) + stream.to_bytes(4, "big") + body


def main() -> None:
    answers = _Answers(int(sys.argv[1]))
    listener = socket.create_server(("127.0.0.1", 0), backlog=64)

    def accept() -> None:
        while True:
            threading.Thread(target=answers.serve, args=listener.accept()[:1], daemon=True).start()

    threading.Thread(target=accept, daemon=True).start()
    print(listener.getsockname()[1], flush=True)
    sys.stdin.read()
    os._exit(0)


if __name__ == "__main__":
    main()
