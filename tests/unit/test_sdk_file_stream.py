"""A file's stream, used as the file object that it is."""

from __future__ import annotations

import csv
import gc
import gzip
import inspect
import io
import json
import pickle
import random
import shutil
import tarfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from sandbox_sync import errors
from sandbox_sync.config import ConnectionConfig
from sandbox_sync.file_stream import FileStream
from sandbox_sync.filesystem import Filesystem
from sandbox_sync.transport.envd import EnvdConnection
from sandbox_sync.transport.http1 import BLOCK
from sandbox_sync.transport.sockets import DeadlineSocket
from tests.unit.wire_server import Peer, Received, WireServer, answering, chunk, scripted

DATA = random.Random(7).randbytes(2 * BLOCK + 1003)


def files_at(server: WireServer) -> Filesystem:
    config = ConnectionConfig.resolve(api_key="k", sandbox_url=server.url)
    return Filesystem(EnvdConnection(config, "i1"))


@contextmanager
def streaming(data: bytes, size: int = BLOCK) -> Iterator[FileStream]:
    """A stream of this data, which arrives in chunks of a size."""

    def respond(peer: Peer, request: Received) -> None:
        peer.send(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n")
        for start in range(0, len(data), size):
            peer.send(chunk(data[start : start + size]))
        peer.send(b"0\r\n\r\n")

    with answering(respond) as server, files_at(server).read("x", format="stream") as stream:
        yield stream


def test_it_is_an_iterator_of_chunks() -> None:
    with streaming(DATA) as stream:
        assert iter(stream) is stream
        chunks = list(stream)
    assert b"".join(chunks) == DATA
    assert all(chunks)
    assert max(map(len, chunks)) <= BLOCK


def test_it_is_a_binary_file_that_can_only_be_read_forwards() -> None:
    with streaming(DATA) as stream:
        assert isinstance(stream, io.BufferedIOBase)
        assert stream.readable()
        assert not stream.writable()
        assert not stream.seekable()
        for impossible in (stream.tell, stream.fileno, lambda: stream.seek(0), lambda: stream.write(b"")):
            with pytest.raises(io.UnsupportedOperation):
                impossible()


@pytest.mark.parametrize("arriving", [1000, BLOCK], ids=["in little pieces", "in blocks"])
def test_all_ways_of_reading_go_on_where_the_last_one_ended(arriving: int) -> None:
    with streaming(DATA, arriving) as stream:
        taken = [stream.read(0), stream.read(10), next(stream), stream.read1(5), stream.read(70_000)]
        assert list(map(len, taken)) == [0, 10, len(taken[2]), 5, 70_000]
        buffer = bytearray(3000)
        assert stream.readinto(buffer) == 3000
        taken.append(bytes(buffer))
        assert stream.readinto1(memoryview(buffer)[:7]) == 7
        taken.append(bytes(buffer[:7]))
        taken.append(stream.readline())
        taken.append(stream.read())
        assert b"".join(taken) == DATA
        assert [stream.read(), stream.read(5), stream.read1(), stream.readline()] == [b""] * 4
        assert list(stream) == []
        assert not stream.closed


def test_lines_are_whole_wherever_they_are_split() -> None:
    lines = [b"x" * length + b"\n" for length in (0, 1, 2, 5, 1000, 999, 3 * BLOCK, 7)] + [b"without an end"]
    data = b"".join(lines)
    for arriving in (1000, BLOCK):
        with streaming(data, arriving) as stream:
            assert list(iter(stream.readline, b"")) == lines
        with streaming(data, arriving) as stream:
            assert stream.readlines() == lines
    with streaming(data) as stream:
        assert stream.readlines(4) == lines[:3]
        assert [stream.readline(size) for size in (0, 4, 4)] == [b"", b"xxxx", b"x\n"]
    with streaming(data) as stream:
        assert list(io.BufferedReader(stream)) == lines


def test_text_is_read_through_a_wrapper() -> None:
    text = "gr\u00fc\u00df\u20ac\U0001f600,1\r\n" * 5000
    with streaming(text.encode(), 1001) as stream, io.TextIOWrapper(stream, "utf-8", newline="") as wrapped:
        assert list(csv.reader(wrapped)) == [["gr\u00fc\u00df\u20ac\U0001f600", "1"]] * 5000
    assert stream.closed
    with streaming(text.encode(), 1001) as stream:
        wrapped = io.TextIOWrapper(io.BufferedReader(stream), "utf-8", newline="")  # type: ignore[arg-type]
        assert wrapped.read() == text


def test_the_standard_library_reads_from_it(tmp_path: Path) -> None:
    value = {"list": list(range(50_000)), "text": "\u00fc"}
    with streaming(json.dumps(value).encode(), 1000) as stream:
        assert json.load(stream) == value
    with streaming(pickle.dumps(value), 1000) as stream:
        assert pickle.load(stream) == value
    with streaming(gzip.compress(DATA), 1000) as stream, gzip.open(stream) as unpacked:
        assert unpacked.read() == DATA
    archive = io.BytesIO()
    with tarfile.open(fileobj=archive, mode="w:gz") as tar:
        (tmp_path / "member").write_bytes(DATA)
        tar.add(tmp_path / "member", "member")
    with streaming(archive.getvalue(), 1000) as stream, tarfile.open(fileobj=stream, mode="r|gz") as tar:
        member = next(iter(tar))
        extracted = tar.extractfile(member)
        assert extracted is not None
        assert extracted.read() == DATA
    with streaming(DATA, 1000) as stream, open(tmp_path / "copy", "wb") as copy:
        shutil.copyfileobj(stream, copy)
    assert (tmp_path / "copy").read_bytes() == DATA


def test_after_the_end_of_the_file_the_connection_is_used_again() -> None:
    with answering(lambda peer, request: peer.answer(200, DATA)) as server:
        files = files_at(server)
        for _ in range(3):
            with files.read("x", format="stream") as stream:
                assert stream.read() == DATA
        assert files.read("x", format="bytes") == DATA
        assert len(server.connections) == 1


def never_ending(peer: Peer) -> None:
    peer.receive()
    peer.send(b"HTTP/1.1 200 OK\r\ncontent-length: 100000000\r\n\r\n" + DATA)
    peer.wait_for_end()


ENDS: dict[str, Callable[[FileStream], object]] = {
    "closed": lambda stream: stream.close(),
    "end of with": lambda stream: stream.__exit__(None, None, None),
    "dropped": lambda stream: None,
}


@pytest.mark.parametrize("end", ENDS.values(), ids=ENDS.keys())
def test_giving_it_up_closes_the_connection_at_once(end: Callable[[FileStream], object]) -> None:
    with scripted(never_ending) as server:
        stream = files_at(server).read("x", format="stream")
        assert stream.read(5) == DATA[:5]
        gc.disable()  # nothing but its last reference ends it
        try:
            end(stream)
            del stream
            assert server.ended.acquire(timeout=5)
        finally:
            gc.enable()


def test_a_wrapper_that_is_dropped_closes_the_connection() -> None:
    with scripted(never_ending) as server:
        text = io.TextIOWrapper(files_at(server).read("x", format="stream"), "latin-1")
        assert text.read(5) == DATA[:5].decode("latin-1")
        del text
        gc.collect()
        assert server.ended.acquire(timeout=5)


@pytest.mark.parametrize("when", ["at once", "in the middle", "at its end"])
def test_a_closed_stream_is_no_end_of_the_file(when: str) -> None:
    with streaming(DATA) as stream:
        if when != "at once":
            stream.read(10 if when == "in the middle" else -1)
        stream.close()
        stream.close()
        assert stream.closed
        for read in (
            lambda: next(stream),
            lambda: stream.read(),
            lambda: stream.read(0),
            lambda: stream.read(5),
            lambda: stream.read1(),
            lambda: stream.readline(),
            lambda: stream.readinto(bytearray(5)),
            lambda: list(stream),
            lambda: stream.readable(),
            lambda: stream.__enter__(),
        ):
            with pytest.raises(ValueError, match="closed"):
                read()


def test_another_thread_may_close_it_while_it_is_read() -> None:
    caught: list[errors.SandboxException] = []
    with scripted(never_ending) as server:
        stream = files_at(server).read("x", format="stream")
        assert stream.read(len(DATA)) == DATA

        def read() -> None:
            try:
                stream.read(1)
            except errors.SandboxException as error:
                caught.append(error)

        reader = threading.Thread(target=read)
        reader.start()
        while inspect.getgeneratorstate(stream._body._blocks) != inspect.GEN_RUNNING:
            time.sleep(0.001)
        begin = time.monotonic()
        stream.close()
        reader.join(5)
        assert time.monotonic() - begin < 1
        assert server.ended.acquire(timeout=5)
    (error,) = caught
    assert isinstance(error, errors.ConnectionException)
    assert "closed" in str(error)


def test_another_thread_that_reads_at_the_same_time_is_told_so_and_disturbs_nobody() -> None:
    taken: list[bytes] = []
    go = threading.Event()

    def script(peer: Peer) -> None:
        peer.receive()
        peer.send(b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n" % len(DATA))
        go.wait(20)
        peer.send(DATA)
        peer.wait_for_end()

    with scripted(script) as server, files_at(server).read("x", format="stream") as stream:
        reader = threading.Thread(target=lambda: taken.append(stream.read()))
        reader.start()
        while inspect.getgeneratorstate(stream._body._blocks) != inspect.GEN_RUNNING:
            time.sleep(0.001)
        with pytest.raises(errors.ConnectionException, match="another thread"):
            stream.read(1)
        go.set()
        reader.join(20)
        assert taken == [DATA]


def test_a_stream_that_broke_stays_broken() -> None:
    """G47: whoever catches the error and reads on does not find the end of the file."""

    def respond(peer: Peer, request: Received) -> None:
        peer.send(b"HTTP/1.1 200 OK\r\ncontent-length: 1000000\r\n\r\n" + DATA)
        peer.close()

    with answering(respond) as server, files_at(server).read("x", format="stream") as stream:
        with pytest.raises(errors.ConnectionException):
            stream.read()
        for read in (
            stream.read,
            stream.read1,
            lambda: stream.read(1),
            lambda: next(stream),
            stream.readlines,
        ):
            with pytest.raises(errors.ConnectionException):
                read()
        with pytest.raises(errors.ConnectionException):
            shutil.copyfileobj(stream, io.BytesIO())


def test_a_stream_whose_reading_was_interrupted_does_not_seem_to_end(monkeypatch: pytest.MonkeyPatch) -> None:
    """G47."""
    with streaming(DATA, 1000) as stream:
        assert stream.read(10) == DATA[:10]

        def interrupted(*arguments: object) -> bytes:
            raise KeyboardInterrupt

        monkeypatch.setattr(DeadlineSocket, "recv", interrupted)
        with pytest.raises(KeyboardInterrupt):
            stream.read()
        monkeypatch.undo()
        with pytest.raises(errors.SandboxException, match="interrupted"):
            stream.read()
