"""Transfers of files that are cut, refused or sent elsewhere, at whatever point."""

from __future__ import annotations

import gzip
import io
import itertools
import random
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import pytest

from sandbox_sync import errors
from sandbox_sync.config import ConnectionConfig
from sandbox_sync.file_stream import FileStream
from sandbox_sync.filesystem import Filesystem
from sandbox_sync.transport.envd import EnvdConnection
from sandbox_sync.transport.http1 import BLOCK
from tests.unit.wire_server import Peer, Received, WireServer, answering, chunk, scripted

SHORT = b"0123456789abcdef0123456789"
LONG = random.Random(11).randbytes(2 * BLOCK + 100)
START = 1000
CONTENT = random.Random(3).randbytes(3 * BLOCK)[START:]
WRITTEN = b'[{"path":"/home/user/a","name":"a","type":"file"}]'


def files_at(server: WireServer) -> Filesystem:
    config = ConnectionConfig.resolve(api_key="k", sandbox_url=server.url)
    return Filesystem(EnvdConnection(config, "i1"))


# Downloads


def with_length(body: bytes, fields: bytes = b"") -> tuple[bytes, bytes]:
    return b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n%b\r\n" % (len(body), fields), body


def in_chunks(body: bytes, fields: bytes = b"", padding: bytes = b"") -> tuple[bytes, bytes]:
    size = max(len(body) // 3, 1)
    chunks = [padding + chunk(body[start : start + size]) for start in range(0, len(body), size)]
    return b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n%b\r\n" % fields, b"".join(
        [*chunks, b"0\r\n\r\n"]
    )


PACKED = b"content-encoding: gzip\r\n"
FRAMINGS: dict[str, Callable[[bytes], tuple[bytes, bytes]]] = {
    "length": with_length,
    "chunks": in_chunks,
    "padded chunks": lambda body: in_chunks(body, padding=b"000"),
    "gzip, length": lambda body: with_length(gzip.compress(body), PACKED),
    "gzip, chunks": lambda body: in_chunks(gzip.compress(body), PACKED),
}


def little_by_little(stream: FileStream) -> Iterator[bytes]:
    return iter(lambda: stream.read(7), b"")


FORMATS: dict[str, Callable[[Filesystem], bytes]] = {
    "text": lambda files: files.read("x").encode(),
    "bytes": lambda files: bytes(files.read("x", format="bytes")),
    "chunks": lambda files: b"".join(files.read("x", format="stream")),
    "lines": lambda files: b"".join(files.read("x", format="stream").readlines()),
    "file": lambda files: b"".join(little_by_little(files.read("x", format="stream"))),
}


@dataclass
class Cut:
    """Where a server ends its answer, and how."""

    answer: bytes = b""
    hard: bool = False

    def __call__(self, peer: Peer, request: Received) -> None:
        if request.target == "/health":
            peer.answer(204)
            return
        peer.send(self.answer)
        if self.hard:
            peer.reset()
        else:
            peer.close()


def offsets(body: bytes) -> Iterable[int]:
    """All offsets of a short body, and those of a long one around which something may be different."""
    if len(body) < 1000:
        return range(len(body))
    edges = (0, BLOCK // 3, BLOCK, 2 * BLOCK, len(body) - 2)
    return sorted({min(max(edge + by, 0), len(body) - 1) for edge in edges for by in (-1, 0, 1)})


@pytest.mark.parametrize("framing", FRAMINGS.values(), ids=FRAMINGS.keys())
@pytest.mark.parametrize("read", FORMATS.values(), ids=FORMATS.keys())
@pytest.mark.parametrize("content", [SHORT, b"", LONG], ids=["short", "empty", "long"])
def test_a_file_that_is_cut_anywhere_is_an_error(
    content: bytes, read: Callable[[Filesystem], bytes], framing: Callable[[bytes], tuple[bytes, bytes]]
) -> None:
    """G47: a short body, or one without its last chunk, is an error at every offset, in every format."""
    if content is LONG and read is FORMATS["text"]:
        content = content.hex().encode()[: len(content)]
    head, body = framing(content)
    cut = Cut()
    with answering(cut) as server:
        files = files_at(server)
        for offset in offsets(body):
            cut.answer = head + body[:offset]
            with pytest.raises(errors.ConnectionException) as caught:
                read(files)
            assert caught.value.sandbox_state == "alive", offset
        cut.answer = head + body
        assert read(files) == content


@pytest.mark.parametrize("read", FORMATS.values(), ids=FORMATS.keys())
def test_a_file_whose_connection_is_reset_is_an_error(read: Callable[[Filesystem], bytes]) -> None:
    """G47."""
    head, body = with_length(SHORT)
    with answering(Cut(head + body[:5], hard=True)) as server, pytest.raises(errors.ConnectionException):
        read(files_at(server))


@pytest.mark.parametrize("read", FORMATS.values(), ids=FORMATS.keys())
def test_compressed_content_that_ends_too_early_is_an_error_even_if_its_frame_is_whole(
    read: Callable[[Filesystem], bytes],
) -> None:
    """G47: something on the way has made a whole answer of the beginning of one."""
    packed = gzip.compress(SHORT) + gzip.compress(SHORT)
    cut = Cut()
    with answering(cut) as server:
        files = files_at(server)
        for offset in range(1, len(packed)):
            cut.answer = b"".join(with_length(packed[:offset], PACKED))
            if offset == len(packed) // 2:
                assert read(files) == SHORT
                continue
            with pytest.raises(errors.ConnectionException, match="compressed"):
                read(files)
        cut.answer = b"".join(with_length(packed, PACKED))
        assert read(files) == SHORT * 2
        cut.answer = b"".join(with_length(b"no gzip at all", PACKED))
        with pytest.raises(errors.ConnectionException, match="compressed"):
            read(files)


def test_content_in_a_coding_that_was_not_asked_for_is_an_error() -> None:
    with (
        answering(Cut(b"".join(with_length(SHORT, b"content-encoding: br\r\n")))) as server,
        pytest.raises(errors.ConnectionException, match="'br'"),
    ):
        files_at(server).read("x")


def test_a_block_of_packed_content_is_unpacked_in_blocks() -> None:
    """G29: however large it gets."""
    size = 64 * 1024 * 1024
    answer = b"".join(with_length(gzip.compress(bytes(size), 9), PACKED))
    with answering(lambda peer, request: peer.send(answer)) as server:
        sizes = list(map(len, files_at(server).read("x", format="stream", gzip=True)))
    assert sum(sizes) == size
    assert max(sizes) <= BLOCK


# Uploads


class Tape:
    """A file that can only be read forwards."""

    def __init__(self, data: bytes) -> None:
        self._file = io.BytesIO(data)

    def read(self, size: int = -1) -> bytes:
        return self._file.read(size)


def standing_at_start() -> io.BytesIO:
    file = io.BytesIO(bytes(START) + CONTENT)
    file.seek(START)
    return file


REPEATABLE: dict[str, Callable[[], Any]] = {
    "bytes": lambda: CONTENT,
    "memoryview": lambda: memoryview(bytes(START) + CONTENT)[START:],
    "file that stands in its middle": standing_at_start,
}
SENT_ONCE: dict[str, Callable[[], Any]] = {
    "tape": lambda: Tape(CONTENT),
    "iterable": lambda: iter([CONTENT]),
}


def content_of(request: Received) -> bytes:
    """The content of a multipart body's one file."""
    body = gzip.decompress(request.body) if "content-encoding" in request.headers else request.body
    boundary = request.headers["content-type"].partition("boundary=")[2].encode()
    head, _, rest = body.partition(b"\r\n\r\n")
    content, end, _ = rest.partition(b"\r\n--" + boundary + b"--\r\n")
    assert head.startswith(b"--" + boundary)
    assert end, "the body is not whole"
    return content


def refusing(status: int) -> Callable[[Peer], None]:
    """Answer in the middle of the body and leave the rest of it."""

    def refuse(peer: Peer) -> None:
        peer.sock.recv(5000)
        peer.answer(status, connection="close", location="/elsewhere")
        peer.wait_for_end()

    return refuse


def resetting(peer: Peer) -> None:
    peer.sock.recv(5000)
    peer.reset()


def failing_first(fail: Callable[[Peer], None], taken: list[Received]) -> Callable[[Peer], None]:
    """Fail on the first connection for files; take what comes on the others."""
    turns = itertools.count()

    def script(peer: Peer) -> None:
        if next(turns) == 0:
            fail(peer)
            return
        while (request := peer.receive()) is not None:
            if request.target == "/health":
                peer.answer(204)
            else:
                taken.append(request)
                peer.answer(200, WRITTEN)

    return script


FAILURES: dict[str, Callable[[Peer], None]] = {"503": refusing(503), "reset": resetting}


@pytest.mark.parametrize("gzipped", [False, True], ids=["plain", "gzip"])
@pytest.mark.parametrize("fail", FAILURES.values(), ids=FAILURES.keys())
@pytest.mark.parametrize("source", REPEATABLE.values(), ids=REPEATABLE.keys())
def test_an_upload_that_fails_in_the_middle_is_repeated_whole(
    source: Callable[[], Any], fail: Callable[[Peer], None], gzipped: bool
) -> None:
    """G46: what is stored are the bytes from where the file stood, all of them."""
    taken: list[Received] = []
    with scripted(failing_first(fail, taken)) as server:
        written = files_at(server).write("a", source(), gzip=gzipped, metadata={"k": "v"})
    assert written.path == "/home/user/a"
    (request,) = taken
    assert content_of(request) == CONTENT
    assert request.headers["x-metadata-k"] == "v"


@pytest.mark.parametrize("gzipped", [False, True], ids=["plain", "gzip"])
@pytest.mark.parametrize("fail", FAILURES.values(), ids=FAILURES.keys())
@pytest.mark.parametrize("source", SENT_ONCE.values(), ids=SENT_ONCE.keys())
def test_an_upload_that_cannot_be_read_again_is_sent_once(
    source: Callable[[], Any], fail: Callable[[Peer], None], gzipped: bool
) -> None:
    """G46: an error, and never a short or an empty file."""
    taken: list[Received] = []
    with (
        scripted(failing_first(fail, taken)) as server,
        pytest.raises((errors.ServiceBusyException, errors.ConnectionException)) as caught,
    ):
        files_at(server).write("a", source(), gzip=gzipped)
    assert caught.value.maybe_executed
    assert taken == []


@pytest.mark.parametrize("source", (REPEATABLE | SENT_ONCE).values(), ids=(REPEATABLE | SENT_ONCE).keys())
@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
def test_an_upload_is_never_redirected(source: Callable[[], Any], status: int) -> None:
    """G46: whether the redirect comes in the middle of the body or after it."""
    for fail in (refusing(status), after_it(status)):
        taken: list[Received] = []
        with (
            scripted(failing_first(fail, taken)) as server,
            pytest.raises(errors.SandboxException) as caught,
        ):
            files_at(server).write("a", source())
        assert caught.value.status == status
        assert taken == []


def after_it(status: int) -> Callable[[Peer], None]:
    def refuse(peer: Peer) -> None:
        peer.receive()
        peer.answer(status, location="/elsewhere")

    return refuse


@pytest.mark.parametrize("source", (REPEATABLE | SENT_ONCE).values(), ids=(REPEATABLE | SENT_ONCE).keys())
def test_an_answer_that_is_cut_is_no_success(source: Callable[[], Any]) -> None:
    """G47: of an upload, too."""
    whole = b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n" % len(WRITTEN) + WRITTEN

    def respond(peer: Peer, request: Received) -> None:
        if request.target == "/health":
            peer.answer(204)
            return
        peer.send(whole[:-1])
        peer.close()

    with answering(respond) as server, pytest.raises(errors.ConnectionException) as caught:
        files_at(server).write("a", source(), request_timeout=30)
    assert caught.value.maybe_executed


def test_several_files_that_cannot_all_be_read_again_are_sent_once() -> None:
    """G46: one of them is enough."""
    taken: list[Received] = []
    with (
        scripted(failing_first(resetting, taken)) as server,
        pytest.raises(errors.ConnectionException),
    ):
        files_at(server).write([{"path": "a", "data": b"1"}, {"path": "b", "data": iter([CONTENT])}])
    assert taken == []


def test_an_answer_that_tells_of_fewer_files_than_were_sent_is_an_error() -> None:
    with (
        answering(lambda peer, request: peer.answer(200, WRITTEN)) as server,
        pytest.raises(errors.SandboxException, match="2 files were sent, and 1"),
    ):
        files_at(server).write([{"path": "a", "data": b"1"}, {"path": "b", "data": b"2"}])


def test_no_files_make_no_request() -> None:
    with answering(lambda peer, request: peer.answer(500)) as server:
        files = files_at(server)
        assert files.write([]) == files.write_files([], "root", 5, metadata={"k": "v"}, gzip=True) == []
        assert server.connections == []


def test_a_source_that_fails_leaves_no_whole_body() -> None:
    """G47: the server sees that it was cut."""

    def pieces() -> Iterator[bytes]:
        yield CONTENT
        raise ZeroDivisionError

    taken: list[bytes] = []

    def script(peer: Peer) -> None:
        while data := peer.sock.recv(1 << 20):
            taken.append(data)

    with scripted(script) as server:
        with pytest.raises(ZeroDivisionError):
            files_at(server).write("a", pieces())
        assert server.ended.acquire(timeout=5)
    assert not b"".join(taken).endswith(b"\r\n0\r\n\r\n")
    assert b"--\r\n" not in b"".join(taken)[-50:]
