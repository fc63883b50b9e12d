"""The floor: sockets that speak the same bytes, and no client around them.

Commands, files and calls are what our SDK sends over Connect, on one connection that is kept open; answers
are looked at no more than it takes to know that they are right. Of small events, which all have to reach a
function as text, it does what cannot be left out: cut the chunks and frames, decode the messages, call the
function. There is no floor of its own for gRPC.
"""

from __future__ import annotations

import json
import os
import re
import socket
import struct
import tempfile
from collections.abc import Iterator
from typing import IO, cast
from urllib.parse import quote

from figures.raw import RawSandbox
from sandbox_sync_rpc import filesystem_pb2, process_pb2

from sandbox_local import LocalServer
from sides import watching
from sides.place import Place, Sizes
from sides.sdk import fill
from sides.usage import Sample

_MIB = 1 << 20
_BLOCK = 256 << 10
_PREFIX = struct.Struct(">BI")
_BOUNDARY = "floor"
_MULTIPART = f"multipart/form-data; boundary={_BOUNDARY}"
_END_OF_PARTS = f"--{_BOUNDARY}--\r\n".encode()
_PLAIN = "application/octet-stream"
_UNARY, _STREAM = "application/proto", "application/connect+proto"


class Floor(RawSandbox):
    """For the actions see `sides.sdk.Sdk`."""

    def __init__(self, place: Place, sizes: Sizes) -> None:
        super().__init__(cast("LocalServer", place))  # of which it asks the URL and the key
        self.sizes = sizes
        self._line = self._connect()
        host, _, port = place.events_url.removeprefix("http://").rpartition(":")
        self._events_at = (host, int(port)) if port else None
        self._file: IO[bytes] | None = None
        self._is_there: set[str] = set()
        self._small = b"".join(
            b"%b%b\r\n" % (_part(f"small/{number:04}"), os.urandom(1024)) for number in range(sizes.files)
        )
        self.run_true()
        self._call(
            "POST", f"/files?path={quote('warm/file')}&username=user", "application/octet-stream", b"1"
        )

    def close(self) -> None:
        self._line.close()
        self.kill()

    def run_true(self) -> None:
        self._run("true")

    def list_files(self) -> None:
        assert self._listed("warm") == 1

    def exists(self) -> None:
        request = filesystem_pb2.StatRequest(path="warm/file")
        answer = self._call("POST", "/filesystem.Filesystem/Stat", _UNARY, request.SerializeToString())
        assert filesystem_pb2.StatResponse.FromString(answer).entry.name == "file"

    def get_info(self) -> None:
        head = (
            f"GET /sandboxes/{self._id} HTTP/1.1\r\nHost: server\r\nX-API-Key: {self._server.api_key}\r\n\r\n"
        )
        assert json.loads(self._answer(head.encode()))["sandboxID"] == self._id

    def events(self) -> None:
        count = 0

        def take(text: str) -> None:
            nonlocal count
            count += 1

        assert self._events_at is not None
        with socket.create_connection(self._events_at) as sock:
            parse = process_pb2.StartResponse.FromString
            for payload in self._stream(sock, "/process.Process/Start", self._start("events")):
                event = parse(payload).event
                if event.WhichOneof("event") == "data":
                    take(event.data.stdout.decode())
        assert count == self.sizes.events, count

    def long_output(self) -> None:
        size = 0
        buffer = bytearray(_MIB)
        body = _framed(self._start(f"head -c {self.sizes.output_mib}M /dev/zero"))
        with self._connect() as sock:
            sock.sendall(self._head("POST", "/process.Process/Start", _STREAM, len(body)) + body)
            while count := sock.recv_into(buffer):
                size += count
        assert size > self.sizes.output_mib * _MIB, size

    def ready_file_up(self) -> None:
        if self._file is None:
            self._file = tempfile.TemporaryFile(dir="/dev/shm")  # noqa: SIM115 - for as long as the process
        fill(self._file, self.sizes.file_bytes)

    def file_up(self) -> None:
        """Send it from the file to the socket within the kernel."""
        assert self._file is not None
        length = self.sizes.file_bytes
        self._line.sendall(self._kept("POST", "/files?path=file&username=user", _PLAIN, length))
        offset = 0
        while offset < length:
            offset += os.sendfile(self._line.fileno(), self._file.fileno(), offset, length - offset)
        self._answer(b"")
        self._is_there.add("file")

    def ready_file_down(self) -> None:
        if "file" not in self._is_there:
            self.ready_file_up()
            self.file_up()

    def file_down(self) -> None:
        buffer = memoryview(bytearray(_BLOCK))
        assert self.download("/home/user/file", buffer) == self.sizes.file_bytes

    def write_many(self) -> None:
        answer = self._call("POST", "/files?username=user", _MULTIPART, self._small + _END_OF_PARTS)
        assert len(json.loads(answer)) == self.sizes.files
        self._is_there.add("small")

    def ready_list_many(self) -> None:
        if "small" not in self._is_there:
            self.write_many()

    def list_many(self) -> None:
        assert self._listed("small") == self.sizes.files

    def ready_watch(self) -> None:
        self._run(watching.prepare())

    def watch(self) -> Sample:
        delays = watching.Delays(self.sizes.changes)
        request = filesystem_pb2.WatchDirRequest(path=watching.DIRECTORY)
        with self._connect() as sock:
            news = self._stream(sock, "/filesystem.Filesystem/WatchDir", request.SerializeToString())
            next(news)
            self._run(watching.changes(self.sizes.changes))
            for payload in news:
                message = filesystem_pb2.WatchDirResponse.FromString(payload)
                if message.HasField("filesystem") and delays.told(message.filesystem.name):
                    break
        return {"seconds": delays.seconds}

    def _run(self, command: str) -> None:
        code = None
        for payload in self._stream(self._line, "/process.Process/Start", self._start(command)):
            event = process_pb2.StartResponse.FromString(payload).event
            if event.HasField("end"):
                code = event.end.exit_code
        assert code == 0, code

    def _start(self, command: str) -> bytes:
        config = process_pb2.ProcessConfig(cmd="/bin/bash", args=["-l", "-c", command])
        return process_pb2.StartRequest(process=config, stdin=False).SerializeToString()

    def _listed(self, path: str) -> int:
        request = filesystem_pb2.ListDirRequest(path=path, depth=1)
        answer = self._call("POST", "/filesystem.Filesystem/ListDir", _UNARY, request.SerializeToString())
        return len(filesystem_pb2.ListDirResponse.FromString(answer).entries)

    def _call(self, method: str, target: str, kind: str, body: bytes) -> bytes:
        return self._answer(self._kept(method, target, kind, len(body)) + body)

    def _answer(self, request: bytes) -> bytes:
        """Send a request over the connection that is kept, and read an answer that tells its length."""
        self._line.sendall(request)
        head, rest = _head_of(self._line)
        found = re.search(rb"(?i)\r\ncontent-length: (\d+)", head)
        assert head.startswith(b"HTTP/1.1 2"), head
        if found is None:
            assert b"chunked" in head.lower(), head
            return b"".join(_chunks(self._line, rest))
        while len(rest) < int(found[1]):
            rest += self._line.recv(_BLOCK)
        return rest

    def _stream(self, sock: socket.socket, path: str, request: bytes) -> Iterator[bytes]:
        """The messages of a streaming call; the connection can be used again when they have ended."""
        body = _framed(request)
        sock.sendall(self._kept("POST", path, _STREAM, len(body)) + body)
        head, rest = _head_of(sock)
        assert head.startswith(b"HTTP/1.1 200"), head
        pending = b""
        for chunk in _chunks(sock, rest):
            pending = pending + chunk if pending else chunk
            start, end = 0, len(pending)
            while end - start >= 5:
                flags, size = _PREFIX.unpack_from(pending, start)
                if end - start < 5 + size:
                    break
                payload = pending[start + 5 : start + 5 + size]
                start += 5 + size
                if not flags:
                    yield payload
                elif json.loads(payload):
                    raise RuntimeError(f"the stream ended with {payload!r}")
            pending = pending[start:]

    def _kept(self, method: str, target: str, kind: str, length: int) -> bytes:
        return self._head(method, target, kind, length).replace(b"Connection: close\r\n", b"", 1)


def _part(name: str) -> bytes:
    return (
        f'--{_BOUNDARY}\r\ncontent-disposition: form-data; name="file"; filename="{name}"\r\n'
        "content-type: application/octet-stream\r\n\r\n"
    ).encode()


def _framed(message: bytes) -> bytes:
    return _PREFIX.pack(0, len(message)) + message


def _head_of(sock: socket.socket) -> tuple[bytes, bytes]:
    received = b""
    while b"\r\n\r\n" not in received:
        more = sock.recv(_BLOCK)
        if not more:
            raise RuntimeError(f"no answer but {received!r}")
        received += more
    head, _, rest = received.partition(b"\r\n\r\n")
    return head, rest


def _chunks(sock: socket.socket, data: bytes) -> Iterator[bytes]:
    while True:
        at = 0
        while (end := data.find(b"\r\n", at)) >= 0:
            size = int(data[at:end], 16)
            start = end + 2
            if start + size + 2 > len(data):
                break
            if not size:
                return
            yield data[start : start + size]
            at = start + size + 2
        more = sock.recv(_BLOCK)
        if not more:
            raise RuntimeError("the answer was cut short")
        data = data[at:] + more
