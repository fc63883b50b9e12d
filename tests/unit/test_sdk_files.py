"""File transfers: bodies in blocks, both ways, whole or not at all."""

from __future__ import annotations

import email
import gc
import gzip
import io
import mmap
import random
import threading
import time
import tracemalloc
from array import array
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any, Literal, cast

import pytest
from sandbox_sync_rest.api.envd import get_files, post_files

from sandbox_sync import errors
from sandbox_sync.config import ConnectionConfig
from sandbox_sync.filesystem import Filesystem
from sandbox_sync.transport.envd import EnvdConnection
from sandbox_sync.transport.files import Payload, described, gzipped, multipart, octets
from sandbox_sync.transport.http1 import BLOCK
from tests.unit.wire_server import Peer, Received, WireServer, answering, chunk, scripted

DATA = random.Random(5).randbytes(3 * BLOCK + 17)
WRITTEN = b'[{"path":"/home/user/a","name":"a","type":"file"}]'
READ = get_files.build(path="/a b/\u00fc?&+", username="user")
WRITE = post_files.build(path="/home/user/a")


def envd_at(server: WireServer, **options: object) -> EnvdConnection:
    config = ConnectionConfig.resolve(api_key="k", sandbox_url=server.url, **options)  # type: ignore[arg-type]
    return EnvdConnection(config, "i1", access_token="secret")


def taking(peer: Peer, request: Received) -> None:
    if request.target == "/health":
        peer.answer(204)
    else:
        peer.answer(200, WRITTEN, content_type="text/plain")


def parts_of(request: Received) -> list[tuple[str, bytes]]:
    """File names and contents of a multipart body, as the standard library understands it."""
    head = f"content-type: {request.headers['content-type']}\r\n\r\n".encode()
    message = email.message_from_bytes(head + request.body)
    return [(part.get_filename() or "", part.get_payload(decode=True)) for part in message.get_payload()]  # type: ignore[misc, union-attr]


class Tape:
    """A binary file that can only be read forwards."""

    def __init__(self, data: bytes) -> None:
        self._file = io.BytesIO(data)
        self.reads: list[int] = []

    def read(self, size: int = -1) -> bytes:
        self.reads.append(size)
        return self._file.read(size)


def at_position(data: bytes, position: int) -> io.BytesIO:
    file = io.BytesIO(data)
    file.seek(position)
    return file


SOURCES: dict[str, tuple[Callable[[], Any], bytes, bool]] = {
    "bytes": (lambda: DATA, DATA, True),
    "bytearray": (lambda: bytearray(DATA), DATA, True),
    "array of numbers": (lambda: array("I", DATA[:16]), DATA[:16], True),
    "every second byte": (lambda: memoryview(DATA[:100])[::2], DATA[:100:2], True),
    "memoryview of numbers": (lambda: memoryview(DATA[:16]).cast("I"), DATA[:16], True),
    "nothing": (lambda: b"", b"", True),
    "text": (lambda: "gr\u00fc\u00df", "gr\u00fc\u00df".encode(), True),
    "file": (lambda: io.BytesIO(DATA), DATA, True),
    "file read from its middle": (lambda: at_position(DATA, 1000), DATA[1000:], True),
    "file read to its end": (lambda: at_position(DATA, len(DATA)), b"", False),
    "text file": (lambda: io.StringIO("gr\u00fc\u00df"), "gr\u00fc\u00df".encode(), False),
    "tape": (lambda: Tape(DATA), DATA, False),
    "iterable": (lambda: iter([DATA[:5], b"", DATA[5:]]), DATA, False),
    "iterable of buffers": (lambda: [bytearray(b"1"), array("I", DATA[:16])], b"1" + DATA[:16], False),
    "iterable of text": (lambda: ["gr", "\u00fc\u00df"], "gr\u00fc\u00df".encode(), False),
}


@pytest.mark.parametrize(("make", "content", "sized"), SOURCES.values(), ids=SOURCES.keys())
def test_every_source_arrives_byte_for_byte(make: Callable[[], Any], content: bytes, sized: bool) -> None:
    with answering(taking) as server:
        response = envd_at(server).upload(WRITE, octets(make()), request_timeout=20)
        entries = post_files.parse(response)
        assert entries is not None
        assert entries[0].path == "/home/user/a"
    (request,) = server.requests
    assert request.body == content
    assert (request.method, request.target) == ("POST", "/files?path=%2Fhome%2Fuser%2Fa")
    assert request.headers["content-type"] == "application/octet-stream"
    assert request.headers["x-access-token"] == "secret"
    assert request.headers.get("content-length") == (str(len(content)) if sized else None)
    assert request.headers.get("transfer-encoding") == (None if sized else "chunked")


@pytest.mark.parametrize(("make", "content", "sized"), SOURCES.values(), ids=SOURCES.keys())
def test_files_are_joined_in_a_multipart_body(make: Callable[[], Any], content: bytes, sized: bool) -> None:
    names = ["/home/user/dir with space/a.txt", 'quo"ted', "back\\slash", "\u00fcml\u00e4ut"]
    with answering(taking) as server:
        payload = multipart([(name, octets(make())) for name in names])
        envd_at(server).upload(WRITE, payload, request_timeout=20)
    (request,) = server.requests
    assert ("content-length" in request.headers) is sized
    assert [content for _, content in parts_of(request)] == [content] * 4
    for line in (b'filename="/home/user/dir with space/a.txt"', b'filename="quo\\"ted"', b'"back\\\\slash"'):
        assert line in request.body
    assert 'filename="\u00fcml\u00e4ut"'.encode() in request.body


@pytest.mark.parametrize("name", ["a\r\nb", "a\nb", "100%22", "a%0Ab", "tab\t\x7f\u00e4"])
def test_a_name_that_a_quoted_header_may_change_is_encoded(name: str) -> None:
    with answering(taking) as server:
        envd_at(server).upload(WRITE, multipart([(name, octets(b"1"))]), request_timeout=20)
    (request,) = server.requests
    assert parts_of(request) == [(name, b"1")]
    assert request.body.count(b"\r\n") == 6, "it breaks out of no line"


def test_a_body_is_compressed_on_its_way() -> None:
    with answering(taking) as server:
        envd_at(server).upload(WRITE, gzipped(octets(io.BytesIO(b"x" * 10_000_000))), request_timeout=20)
    (request,) = server.requests
    assert request.headers["content-encoding"] == "gzip"
    assert gzip.decompress(request.body) == b"x" * 10_000_000
    assert len(request.body) < 100_000


@pytest.mark.parametrize("data", [5, None, object(), {"a": "b"}, "\udc80"])
def test_what_is_no_content_is_refused(data: object) -> None:
    with pytest.raises(errors.InvalidArgumentException, match="file content"):
        octets(data)  # type: ignore[arg-type]


@pytest.mark.parametrize("piece", [5, None, "\udc80"])
def test_what_is_no_piece_of_content_is_refused_when_it_comes(piece: Any) -> None:
    with answering(taking) as server, pytest.raises(errors.InvalidArgumentException, match="file content"):
        envd_at(server).upload(WRITE, octets([b"good", piece]), request_timeout=20)


def test_what_a_device_gives_is_sent_though_it_says_that_it_is_empty(tmp_path: Path) -> None:
    """G46: never an empty file."""
    with open("/dev/zero", "rb") as zeros:
        assert zeros.seek(0, io.SEEK_END) == 0
        assert next(iter(octets(zeros))) == bytes(BLOCK)


def test_a_mapped_file_is_read_from_where_it_stands(tmp_path: Path) -> None:
    """G46."""
    (tmp_path / "file").write_bytes(DATA)
    with open(tmp_path / "file", "rb") as file, mmap.mmap(file.fileno(), 0, prot=mmap.PROT_READ) as mapped:
        mapped.seek(1000)
        payload = octets(cast("Any", mapped))
        assert payload.length == len(DATA) - 1000
        assert b"".join(payload) == b"".join(payload) == DATA[1000:]


def test_metadata_is_sent_in_headers() -> None:
    most = {"a": "x" * (4096 - 9 - 1 - 9 - 246 - 5), "k" * 246: "12345"}
    for metadata in ({"Name": "v w", "x-y_z": ""}, most, {}, None):
        with answering(taking) as server:
            envd_at(server).upload(WRITE, described(octets(b""), metadata), request_timeout=20)
        sent = {key: value for key, value in server.requests[0].headers.items() if "metadata" in key}
        assert sent == {f"x-metadata-{key.lower()}": value for key, value in (metadata or {}).items()}


@pytest.mark.parametrize(
    "metadata",
    [
        "text",
        {"": "v"},
        {"k k": "v"},
        {"k:": "v"},
        {"k\n": "v"},
        {"\u00fc": "v"},
        {"k" * 247: "v"},
        {5: "v"},
        {"k": 5},
        {"k": None},
        {"k": "\u00fc"},
        {"k": "a\r\nx: y"},
        {"k": "v\n"},
        {"k": "\t"},
        {"k": " v"},
        {"k": "v "},
        {"k": "1", "K": "1"},
        {"k": "x" * (4096 - 9)},
        {str(number): "x" * 1000 for number in range(5)},
    ],
)
def test_metadata_that_cannot_be_recorded_is_refused(metadata: Any) -> None:
    with pytest.raises(errors.InvalidArgumentException, match="metadata"):
        described(octets(b""), metadata)


def test_a_file_is_read_in_blocks_and_never_held_whole(tmp_path: Path) -> None:
    """G29: memory does not grow with the file."""
    big = tmp_path / "big"
    with big.open("wb") as hole:
        hole.truncate(64 * 1024 * 1024)
    received: list[int] = []

    def sink(peer: Peer) -> None:
        while block := peer.sock.recv(1 << 20):
            received.append(len(block))
            if sum(received) >= 64 * 1024 * 1024 + 200:
                break
        peer.answer(200, WRITTEN)

    with scripted(sink) as server, big.open("rb") as file:
        envd = envd_at(server)
        tracemalloc.start()
        try:
            envd.upload(WRITE, multipart([("/big", octets(file))]), request_timeout=60)
            _, peak = tracemalloc.get_traced_memory()
        finally:
            tracemalloc.stop()
    assert peak < 8 * 1024 * 1024


def test_a_tape_is_read_in_blocks() -> None:
    tape = Tape(DATA)
    assert b"".join(octets(tape)) == DATA  # type: ignore[arg-type]
    assert set(tape.reads) == {BLOCK}


@pytest.mark.parametrize("failure", ["reset", "503"])
def test_an_upload_that_can_be_repeated_is_repeated_from_where_it_began(failure: str) -> None:
    """G46: bytes stored equal the bytes from the starting offset."""

    def respond(peer: Peer, request: Received) -> None:
        if len(server.requests) > 1:
            taking(peer, request)
        elif failure == "reset":
            peer.reset()
        else:
            peer.answer(503)

    with answering(respond) as server:
        envd_at(server).upload(WRITE, octets(at_position(DATA, 1000)), request_timeout=20)
        assert [request.body for request in server.requests] == [DATA[1000:]] * 2


@pytest.mark.parametrize("source", [lambda: Tape(DATA), lambda: iter([DATA])], ids=["tape", "iterable"])
def test_an_upload_that_cannot_be_repeated_is_sent_once(source: Callable[[], Any]) -> None:
    """G46: an error, and never a short or an empty file."""

    def respond(peer: Peer, request: Received) -> None:
        peer.answer(503)

    with answering(respond) as server:
        with pytest.raises(errors.ServiceBusyException):
            envd_at(server).upload(WRITE, octets(source()), request_timeout=20)
        assert len(server.requests) == 1


def test_an_upload_is_not_redirected() -> None:
    """G46: a redirect would store an empty file."""
    with answering(taking) as other:

        def respond(peer: Peer, request: Received) -> None:
            peer.answer(307, location=f"{other.url}/files")

        with answering(respond) as server, pytest.raises(errors.SandboxException) as caught:
            envd_at(server).upload(WRITE, octets(DATA), request_timeout=20)
    assert caught.value.status == 307
    assert other.requests == []


def test_a_file_that_shrinks_while_it_is_sent_is_an_error() -> None:
    class Shrinking(io.BytesIO):
        def read(self, size: int | None = -1) -> bytes:
            self.truncate(1000)
            return super().read(size)

    with answering(taking) as server, pytest.raises(errors.SandboxException, match="shorter"):
        envd_at(server).upload(WRITE, octets(Shrinking(DATA)), request_timeout=20)


def test_a_file_that_grows_while_it_is_sent_is_sent_as_long_as_it_was() -> None:
    class Growing(io.BytesIO):
        def read(self, size: int | None = -1) -> bytes:
            data = super().read(size)
            position = self.tell()
            self.seek(0, io.SEEK_END)
            self.write(b"more")
            self.seek(position)
            return data

    with answering(taking) as server:
        envd_at(server).upload(WRITE, octets(Growing(DATA)), request_timeout=20)
        assert server.requests[0].body == DATA


@pytest.mark.parametrize("error", [OSError("disk"), ValueError("closed file"), KeyboardInterrupt()])
def test_an_error_of_the_callers_source_comes_back_as_it_is(error: BaseException) -> None:
    def pieces() -> Iterator[bytes]:
        yield b"some"
        raise error

    with answering(taking) as server:
        with pytest.raises(type(error)) as caught:
            envd_at(server).upload(WRITE, octets(pieces()), request_timeout=20)
        assert caught.value is error
        assert server.ended.acquire(timeout=5), "the connection is closed, not used for other calls"


def test_no_space_is_said() -> None:
    body = b'{"code":507,"message":"not enough disk space available"}'
    with (
        answering(lambda peer, request: peer.answer(507, body)) as server,
        pytest.raises(errors.NotEnoughSpaceException, match="disk space"),
    ):
        envd_at(server).upload(WRITE, octets(DATA), request_timeout=20)


def test_the_answer_is_heard_even_if_the_server_does_not_take_the_body() -> None:
    def script(peer: Peer) -> None:
        peer.sock.recv(1000)
        peer.answer(507, b'{"code":507,"message":"not enough disk space available"}', connection="close")
        peer.wait_for_end()

    with scripted(script) as server, pytest.raises(errors.NotEnoughSpaceException):
        envd_at(server).upload(WRITE, octets(b"x" * 1_000_000), request_timeout=20)


def paced(pieces: int, every: float) -> Iterable[bytes]:
    for _ in range(pieces):
        time.sleep(every)
        yield b"x" * 1000


def test_a_slow_upload_that_moves_is_not_cut_off() -> None:
    """G29: request_timeout that is only configured does not end what has to be read first."""
    with answering(taking) as server:
        envd_at(server, request_timeout=0.3).upload(WRITE, octets(paced(8, 0.1)), idle_timeout=0.5)
        assert len(server.requests[0].body) == 8000


def test_a_request_timeout_that_is_asked_for_counts_for_every_upload() -> None:
    """G4."""
    with answering(taking) as server:
        begin = time.monotonic()
        with pytest.raises(errors.RequestTimeoutException):
            envd_at(server).upload(WRITE, octets(paced(100, 0.1)), request_timeout=0.5)
        assert 0.5 <= time.monotonic() - begin < 1.0


def test_an_upload_that_stalls_ends() -> None:
    """G29: the server takes nothing for longer than the idle bound."""
    with scripted(lambda peer: threading.Event().wait(5)) as server:
        begin = time.monotonic()
        with pytest.raises(errors.SandboxUnreachableException) as caught:
            envd_at(server).upload(WRITE, octets(Tape(b"x" * 50_000_000)), idle_timeout=0.4)  # type: ignore[arg-type]
        assert caught.value.clock == "silence"
        assert time.monotonic() - begin < 6.5  # a health check of at most 5 s follows


# Downloads


def giving(data: bytes, **headers: str) -> Callable[[Peer, Received], None]:
    return lambda peer, request: peer.answer(200, data, **headers)


def test_a_file_is_read_whole() -> None:
    with answering(giving(DATA, content_type="text/x")) as server:
        with envd_at(server).download(READ, request_timeout=20) as body:
            assert body.headers["content-type"] == "text/x"
            assert body.read() == DATA
        (request,) = server.requests
        assert request.target == "/files?path=%2Fa%20b%2F%C3%BC%3F%26%2B&username=user"
        assert request.headers["accept-encoding"] == "identity"
        assert request.headers["x-access-token"] == "secret"
        with envd_at(server).download(READ) as body:
            assert body.read() == DATA
        assert len(server.connections) == 1


def test_a_file_is_read_in_blocks() -> None:
    with answering(giving(DATA)) as server, envd_at(server).download(READ) as body:
        blocks = list(body)
    assert b"".join(blocks) == DATA
    assert max(map(len, blocks)) <= BLOCK


def test_an_empty_file_is_read_and_its_connection_kept() -> None:
    with answering(giving(b"")) as server:
        for _ in range(2):
            with envd_at(server).download(READ) as body:
                assert body.read() == b""
        assert len(server.connections) == 1


def test_a_compressed_file_is_read() -> None:
    with answering(giving(gzip.compress(DATA), content_encoding="gzip")) as server:
        with envd_at(server).download(READ, gzip=True) as body:
            assert body.read() == DATA
        assert server.requests[0].headers["accept-encoding"] == "gzip, identity;q=0"


def test_a_missing_file_is_a_missing_file() -> None:
    body = b'{"code":404,"message":"path \'/a\' does not exist"}'
    with (
        answering(lambda peer, request: peer.answer(404, body)) as server,
        pytest.raises(errors.FileNotFoundException, match="does not exist") as caught,
    ):
        envd_at(server).download(READ)
    assert caught.value.path == "/files", "the query may hold a signature"


CUTS = {
    "length": b"HTTP/1.1 200 OK\r\ncontent-length: 1000000\r\n\r\n" + DATA,
    "chunks": b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n" + chunk(DATA),
    "no framing": b"HTTP/1.1 200 OK\r\n\r\n" + DATA,
}


@pytest.mark.parametrize("head", CUTS.values(), ids=CUTS.keys())
@pytest.mark.parametrize("whole", [True, False], ids=["whole", "in blocks"])
def test_a_file_cut_short_is_an_error(head: bytes, whole: bool) -> None:
    """G47."""

    def respond(peer: Peer, request: Received) -> None:
        if request.target == "/health":
            peer.answer(204)
            return
        peer.send(head)
        peer.close()

    with answering(respond) as server, envd_at(server).download(READ) as body:
        with pytest.raises(errors.ConnectionException) as caught:
            body.read() if whole else list(body)
        assert caught.value.sandbox_state == "alive"


def trickling(pieces: int, every: float) -> Callable[[Peer], None]:
    def script(peer: Peer) -> None:
        request = peer.receive()
        if request is not None and request.target == "/health":
            peer.answer(204)
            return
        peer.send(b"HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\n")
        for _ in range(pieces):
            time.sleep(every)
            peer.send(b"x" * (100 // pieces))
        if pieces < 10:
            peer.wait_for_end()

    return script


def test_a_slow_file_that_moves_is_read_in_blocks_to_its_end() -> None:
    """G29."""
    with (
        scripted(trickling(10, 0.1)) as server,
        envd_at(server).download(READ, request_timeout=0.4, idle_timeout=2.0) as body,
    ):
        assert b"".join(body) == b"x" * 100


def test_a_file_read_whole_keeps_to_request_timeout() -> None:
    """G4: however often something arrives."""
    with scripted(trickling(10, 0.2)) as server:
        begin = time.monotonic()
        with (
            envd_at(server).download(READ, request_timeout=0.5) as body,
            pytest.raises(errors.RequestTimeoutException),
        ):
            body.read()
        assert 0.5 <= time.monotonic() - begin < 1.0


def test_a_file_that_stalls_is_an_error() -> None:
    """G29: the idle bound is obeyed."""

    def script(peer: Peer) -> None:
        peer.receive()
        peer.send(b"HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\nx")
        peer.wait_for_end()

    with scripted(script) as server:
        config = ConnectionConfig.resolve(api_key="k", sandbox_url=server.url)
        envd = EnvdConnection(config, "i1", keepalive_interval=0.2)
        with envd.download(READ, request_timeout=30, idle_timeout=0.4) as body:
            begin = time.monotonic()
            with pytest.raises(errors.SandboxUnreachableException) as caught:
                list(body)
            assert 0.4 <= time.monotonic() - begin < 1.5
    assert caught.value.clock == "silence"


@pytest.mark.parametrize("request_timeout", [0, 30])
def test_a_file_that_stalls_is_an_error_for_who_reads_it_whole(request_timeout: float) -> None:
    """G29: however long the call may take; the error tells how long it was silent for."""

    def script(peer: Peer) -> None:
        peer.receive()
        peer.send(b"HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\nx")
        peer.wait_for_end()

    with scripted(script) as server:
        config = ConnectionConfig.resolve(api_key="k", sandbox_url=server.url)
        files = Filesystem(EnvdConnection(config, "i1", keepalive_interval=0.2))
        formats: list[Literal["text", "bytes"]] = ["text", "bytes"]
        for read in formats:
            begin = time.monotonic()
            with pytest.raises(errors.SandboxUnreachableException) as caught:
                files.read("x", read, request_timeout=request_timeout, stream_idle_timeout=0.4)
            assert 0.4 <= time.monotonic() - begin < 1.5
            assert (caught.value.clock, caught.value.limit) == ("silence", 0.4)


def test_a_slow_file_that_moves_is_read_whole_if_the_call_may_take_so_long() -> None:
    """G29."""
    with scripted(trickling(10, 0.1)) as server:
        files = Filesystem(envd_at(server))
        assert files.read("x", request_timeout=0, stream_idle_timeout=0.5) == "x" * 100
        assert files.read("x", "bytes", request_timeout=30, stream_idle_timeout=0.5) == b"x" * 100


@pytest.mark.parametrize("bound", [-1, float("nan"), "5"])
def test_an_idle_bound_that_cannot_be_is_refused_before_anything_is_sent(bound: Any) -> None:
    with answering(giving(b"")) as server:
        with pytest.raises(errors.InvalidArgumentException, match="stream_idle_timeout"):
            Filesystem(envd_at(server)).read("x", stream_idle_timeout=bound)
        assert server.connections == []


def test_a_dropped_download_ends_its_transfer() -> None:
    def script(peer: Peer) -> None:
        peer.receive()
        peer.send(b"HTTP/1.1 200 OK\r\ncontent-length: 100000000\r\n\r\n" + DATA)
        peer.wait_for_end()

    with scripted(script) as server:
        body = envd_at(server).download(READ)
        next(body)
        del body
        gc.collect()
        assert server.ended.acquire(timeout=5)


def test_a_large_file_is_read_whole_without_being_held_twice() -> None:
    size = 64 * 1024 * 1024

    def respond(peer: Peer, request: Received) -> None:
        peer.send(b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n" % size)
        for _ in range(64):
            peer.send(b"x" * (1 << 20))

    with answering(respond) as server, envd_at(server).download(READ, request_timeout=60) as body:
        tracemalloc.start()
        try:
            content = body.read()
            _, peak = tracemalloc.get_traced_memory()
        finally:
            tracemalloc.stop()
    assert len(content) == size
    assert peak < 1.5 * size


def test_payloads_know_their_length_where_it_can_be_known() -> None:
    def length(payload: Payload) -> int:
        return len(b"".join(payload))

    known = multipart([("a", octets(b"1")), ("b", octets(io.BytesIO(DATA)))])
    assert known.length == length(known)
    assert multipart([("a", octets(b"1")), ("b", octets(iter([b"2"])))]).length is None
    assert multipart([]).length == length(multipart([]))


def test_many_small_files_in_memory_go_out_in_few_pieces_and_large_ones_without_a_copy() -> None:
    files = [(str(number), octets(bytes([number % 256]) * 1024)) for number in range(1000)]
    large = random.Random(1).randbytes(2 * BLOCK)
    blocks = list(multipart([*files, ("large", octets(large))]))
    assert sum(map(len, blocks)) == multipart([*files, ("large", octets(large))]).length
    assert len(blocks) < 12
    assert sum(isinstance(block, memoryview) and block.obj is large for block in blocks) == 2


def test_small_pieces_that_have_to_be_read_are_not_kept_for_more() -> None:
    payload = multipart([("a", octets(iter([b"one", b"two"])))])
    assert [bytes(block) for block in payload][1:3] == [b"one", b"two"]
