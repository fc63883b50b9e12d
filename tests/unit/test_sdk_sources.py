"""Files of the system's that are uploaded: the same bytes as if they were read, under the same bounds."""

from __future__ import annotations

import io
import os
import random
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any

import pytest
from sandbox_sync_rest.api.envd import post_files

from sandbox_sync import errors
from sandbox_sync.config import ConnectionConfig
from sandbox_sync.transport.envd import EnvdConnection
from sandbox_sync.transport.files import gzipped, multipart, octets
from sandbox_sync.transport.http1 import BLOCK
from sandbox_sync.transport.sockets import DeadlineSocket
from sandbox_sync.transport.sources import is_of_system
from tests.unit.wire_server import Peer, Received, WireServer, answering, scripted

DATA = random.Random(3).randbytes(20 * BLOCK + 321)
WRITE = post_files.build(path="/a")


def envd_at(server: WireServer, **options: Any) -> EnvdConnection:
    config = ConnectionConfig.resolve(api_key="k", sandbox_url=server.url, **options)
    return EnvdConnection(config, "i1")


def taking(peer: Peer, request: Received) -> None:
    peer.answer(200, b'[{"path": "/a", "name": "a", "type": "file"}]')


@pytest.fixture
def file(tmp_path: Path) -> Iterator[IO[bytes]]:
    path = tmp_path / "data"
    path.write_bytes(DATA)
    with path.open("rb") as opened:
        yield opened


@pytest.fixture
def sent(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How much was sent of each file within the kernel."""
    counts: list[int] = []
    send_file = DeadlineSocket.send_file

    def counting(self: DeadlineSocket, file: int, start: int, length: int) -> int:
        counts.append(send_file(self, file, start, length))
        return counts[-1]

    monkeypatch.setattr(DeadlineSocket, "send_file", counting)
    return counts


@pytest.mark.parametrize("start", [0, 1, 7 * BLOCK + 5])
def test_the_kernel_sends_it_from_where_it_stands(file: IO[bytes], sent: list[int], start: int) -> None:
    """G46."""
    file.seek(start)
    with answering(taking) as server:
        envd_at(server).upload(WRITE, octets(file))
        assert server.requests[0].body == DATA[start:]
    assert sent == [len(DATA) - start]
    assert file.tell() == len(DATA)


def test_what_was_written_to_it_is_part_of_it(sent: list[int]) -> None:
    with tempfile.TemporaryFile() as made, answering(taking) as server:
        made.write(DATA)
        made.write(b"not flushed")
        made.seek(5)
        made.write(b"changed")
        made.seek(0)
        envd_at(server).upload(WRITE, octets(made))
        assert server.requests[0].body == DATA[:5] + b"changed" + DATA[12:] + b"not flushed"
    assert sent == [len(DATA) + 11]


def test_it_is_repeated_from_where_it_began(file: IO[bytes], sent: list[int]) -> None:
    """G46."""

    def respond(peer: Peer, request: Received) -> None:
        taking(peer, request) if len(server.requests) > 1 else peer.answer(503)

    file.seek(99)
    with answering(respond) as server:
        envd_at(server).upload(WRITE, octets(file), request_timeout=20)
        assert [request.body == DATA[99:] for request in server.requests] == [True, True]
    assert len(sent) == 2


@pytest.mark.parametrize("left", [0, 3 * BLOCK])
def test_one_that_becomes_shorter_is_an_error(file: IO[bytes], left: int) -> None:
    """G46: and never a shorter file in the sandbox."""
    payload = octets(file)
    os.truncate(file.name, left)
    words = f"{len(DATA) - left} bytes shorter"
    with scripted(Peer.wait_for_end) as server, pytest.raises(errors.SandboxException, match=words):
        envd_at(server).upload(WRITE, payload)


def test_a_server_that_takes_nothing_ends_it(file: IO[bytes], tmp_path: Path) -> None:
    """G29: when the idle bound is reached, however much the kernel keeps for the server."""
    os.truncate(file.name, 200 << 20)
    over = threading.Event()
    with scripted(lambda peer: over.wait(5)) as server:
        begin = time.monotonic()
        with pytest.raises(errors.SandboxUnreachableException) as caught:
            envd_at(server).upload(WRITE, octets(file), idle_timeout=0.4)
        over.set()
        assert caught.value.clock == "silence"
        assert time.monotonic() - begin < 6.5  # a health check of at most 5 s follows


def test_a_server_that_wants_no_more_is_heard(file: IO[bytes]) -> None:
    os.truncate(file.name, 200 << 20)

    def refuse(peer: Peer) -> None:
        peer.sock.recv(1000)
        peer.answer(507, b'{"code": 507, "message": "not enough disk space available"}')
        peer.wait_for_end()

    with scripted(refuse) as server, pytest.raises(errors.NotEnoughSpaceException):
        envd_at(server).upload(WRITE, octets(file), idle_timeout=5)


def test_what_is_read_in_another_way_is_read(file: IO[bytes], sent: list[int], tmp_path: Path) -> None:
    """What a program sees of these is not what is on the disk, or is no part of a regular file."""

    class Upper(io.FileIO):
        def read(self, size: int | None = -1, /) -> bytes:
            return super().read(-1 if size is None else size).swapcase()

    pipe, end = os.pipe()
    os.close(end)
    with (
        Upper(file.name) as upper,
        open(pipe, "rb") as piped,
        open(tmp_path / "data", encoding="latin-1", newline="") as text,
        open("/proc/self/status", "rb") as made_up,
        answering(taking) as server,
    ):
        assert [is_of_system(each) for each in (upper, piped, text)] == [False] * 3
        for each in (upper, text, made_up):
            envd_at(server).upload(WRITE, octets(each))
        bodies = [request.body for request in server.requests]
    assert bodies[0] == DATA.swapcase()
    assert bodies[1].decode() == DATA.decode("latin-1")
    assert b"Name:" in bodies[2]
    assert sent == []


def test_packed_and_in_forms_it_is_read(file: IO[bytes], sent: list[int]) -> None:
    with answering(taking) as server:
        for payload in (gzipped(octets(file)), multipart([("file", octets(file))])):
            file.seek(0)
            envd_at(server).upload(WRITE, payload)
        assert DATA in server.requests[1].body
    assert sent == []


def test_where_the_kernel_cannot_it_is_read(file: IO[bytes], monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*arguments: object) -> int:
        raise OSError(22, "Invalid argument")

    monkeypatch.setattr(os, "sendfile", refuse)
    with answering(taking) as server:
        envd_at(server).upload(WRITE, octets(file))
        assert server.requests[0].body == DATA


def test_an_error_of_who_makes_the_parts_is_not_taken_for_the_connections() -> None:
    def parts() -> Iterator[bytes]:
        yield b"x"
        raise BrokenPipeError("of another pipe")

    begin = time.monotonic()
    with answering(taking) as server, pytest.raises(BrokenPipeError, match="of another pipe"):
        envd_at(server).upload(WRITE, octets(parts()), idle_timeout=8)
    assert time.monotonic() - begin < 5, "an answer was waited for"
