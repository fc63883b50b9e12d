"""HTTP/1.1 as it is read and written: however it arrives, and with nothing broken that passes for whole."""

from __future__ import annotations

import contextlib
import http.client
import itertools
import socket
import ssl
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest
import trustme
from hypothesis import given, settings
from hypothesis import strategies as st

from sandbox_sync.config import ConnectionConfig
from sandbox_sync.deadlines import Deadline
from sandbox_sync.errors import InvalidArgumentException
from sandbox_sync.transport import pools
from sandbox_sync.transport.answers import read_all
from sandbox_sync.transport.connections import Route
from sandbox_sync.transport.failures import Failure
from sandbox_sync.transport.heads import AnswerError, request_head
from sandbox_sync.transport.http1 import Answer, Connection
from sandbox_sync.transport.pools import Origin
from sandbox_sync.transport.sockets import DeadlineSocket, TimeLimit
from tests.unit.wire_server import Peer, Received, answering, chunk, scripted

CONFIG = ConnectionConfig.resolve(api_key="k", domain="example.org")
LIMIT = 20.0

OK = b"HTTP/1.1 200 OK\r\n"
CHUNKED = OK + b"transfer-encoding: chunked\r\n\r\n"


class Sipping(DeadlineSocket):
    """A socket that reads so many bytes at a time."""

    sizes: Iterator[int] = itertools.repeat(1 << 20)

    def recv(self, buflen: int = 1024, *options: object, **named: object) -> bytes:
        return super().recv(min(buflen, next(self.sizes)))


@contextlib.contextmanager
def arriving(data: bytes, sizes: Sequence[int] = (1 << 20,)) -> Iterator[Connection]:
    """A connection on which these bytes arrive, in pieces of these sizes, and then its end."""
    ours, theirs = socket.socketpair()
    sock = Sipping(fileno=ours.detach())
    sock.sizes = itertools.cycle(sizes)
    sock.bound(TimeLimit(Deadline.after(LIMIT)))
    with theirs, sock:
        theirs.sendall(data)
        theirs.shutdown(socket.SHUT_WR)
        yield Connection(sock, sock)


def read(data: bytes, sizes: Sequence[int] = (1 << 20,), method: str = "GET") -> tuple[Answer, bytes, bool]:
    """An answer, its content, and whether the connection would have served other calls."""
    freed: list[Connection] = []
    with arriving(data, sizes) as connection:
        answer = connection.answer(method, freed.append)
        content = b"".join(answer.blocks())
        return answer, content, bool(freed) and connection.receive(1) == b""


some_sizes = st.lists(st.integers(1, 40), min_size=1, max_size=5)

# What comes; the status, the content, and whether the connection is of use afterwards.
WHOLE: dict[str, tuple[bytes, int, bytes, bool]] = {
    "length": (OK + b"content-length: 3\r\n\r\nabc", 200, b"abc", True),
    "no content": (OK + b"Content-Length:0\r\n\r\n", 200, b"", True),
    "length said twice": (OK + b"content-length: 3, 3\r\nContent-Length: 3\r\n\r\nabc", 200, b"abc", True),
    "lines of some scripts": (b"HTTP/1.1 200 OK\ncontent-length: 3\n\nabc", 200, b"abc", True),
    "chunks": (CHUNKED + chunk(b"ab") + chunk(b"c") + b"0\r\n\r\n", 200, b"abc", True),
    "chunks with extensions": (CHUNKED + b"3;a=b\r\nabc\r\n000\r\nx: y\r\n\r\n", 200, b"abc", True),
    "until the end": (OK + b"\r\nabc", 200, b"abc", False),
    "until the end, in blank lines": (OK + b"\r\n\r\n\r\n", 200, b"\r\n\r\n", False),
    "no reason": (b"HTTP/1.1 404\r\ncontent-length: 0\r\n\r\n", 404, b"", True),
    "an empty reason": (b"HTTP/1.1 404 \r\ncontent-length: 0\r\n\r\n", 404, b"", True),
    "no content whatever it says": (b"HTTP/1.1 204 X\r\ncontent-length: 3\r\n\r\n", 204, b"", True),
    "not modified": (b"HTTP/1.1 304 X\r\ntransfer-encoding: chunked\r\n\r\n", 304, b"", True),
    "the last one": (OK + b"connection: close\r\ncontent-length: 3\r\n\r\nabc", 200, b"abc", False),
    "the last one, among others": (
        OK + b"connection: a, Close\r\ncontent-length: 0\r\n\r\n",
        200,
        b"",
        False,
    ),
    "of HTTP/1.0": (b"HTTP/1.0 200 OK\r\ncontent-length: 3\r\n\r\nabc", 200, b"abc", False),
    "of HTTP/1.0, kept": (
        b"HTTP/1.0 200 OK\r\nconnection: keep-alive\r\ncontent-length: 0\r\n\r\n",
        200,
        b"",
        True,
    ),
    "after others that are none yet": (
        b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Hints\r\nlink: x\r\n\r\n"
        + OK
        + b"content-length: 1\r\n\r\na",
        200,
        b"a",
        True,
    ),
    "of another protocol from here on": (b"HTTP/1.1 101 Switching\r\nupgrade: x\r\n\r\n", 101, b"", False),
    "more than its length": (OK + b"content-length: 3\r\n\r\nabcHTTP/1.1 200 OK\r\n", 200, b"abc", False),
    "more than its chunks": (CHUNKED + b"0\r\n\r\nHTTP/1.1 200 OK\r\n\r\n", 200, b"", False),
    "more than no content": (b"HTTP/1.1 204 X\r\n\r\nabc", 204, b"", False),
}


@pytest.mark.parametrize(("data", "status", "content", "lasting"), WHOLE.values(), ids=WHOLE.keys())
@settings(max_examples=25)
@given(sizes=some_sizes)
def test_an_answer_is_the_same_however_it_arrives(
    data: bytes, status: int, content: bytes, lasting: bool, sizes: list[int]
) -> None:
    """G16: what comes after an answer is no part of it, and of no other call's either."""
    answer, got, free = read(data, sizes)
    assert (answer.status, got, free) == (status, content, lasting)


HOSTILE: dict[str, bytes] = {
    "nothing": b"",
    "an empty line first": b"\r\n" + OK + b"content-length: 0\r\n\r\n",
    "another protocol": b"SSH-2.0-OpenSSH_9.6\r\n",
    "another protocol, in bytes": bytes([0, 0, 18, 4, 0, 0, 0, 0, 0]),
    "another version": b"HTTP/2 200 OK\r\n\r\n",
    "an older version": b"HTTP/0.9 200 OK\r\n\r\n",
    "no status": b"HTTP/1.1 OK\r\n\r\n",
    "a long status": b"HTTP/1.1 2000 OK\r\n\r\n",
    "a short status": b"HTTP/1.1 20 OK\r\n\r\n",
    "a status of zeros": b"HTTP/1.1 000 OK\r\n\r\n",
    "a signed status": b"HTTP/1.1 +20 OK\r\n\r\n",
    "a zero byte in the reason": b"HTTP/1.1 200 O\0K\r\n\r\n",
    "a header without a colon": OK + b"content-length 3\r\n\r\nabc",
    "a header without a name": OK + b": 3\r\n\r\n",
    "a space before the colon": OK + b"content-length : 3\r\n\r\nabc",
    "a space before the name": OK + b" content-length: 3\r\n\r\nabc",
    "a folded header": OK + b"content-length: 3\r\n 0\r\n\r\nabc",
    "a folded header, with a tab": OK + b"x: y\r\n\tz\r\ncontent-length: 0\r\n\r\n",
    "a lone carriage return": OK + b"x: y\rcontent-length: 0\r\n\r\n",
    "a zero byte in a header": OK + b"x: \0\r\ncontent-length: 0\r\n\r\n",
    "two lengths": OK + b"content-length: 3\r\ncontent-length: 4\r\n\r\nabcd",
    "two lengths in a line": OK + b"content-length: 3, 4\r\n\r\nabcd",
    "a length and none": OK + b"content-length: 3,\r\n\r\nabc",
    "an empty length": OK + b"content-length:\r\n\r\n",
    "a negative length": OK + b"content-length: -1\r\n\r\n",
    "a signed length": OK + b"content-length: +3\r\n\r\nabc",
    "a length with an underscore": OK + b"content-length: 1_0\r\n\r\nabcdefghij",
    "a length in other digits": OK + b"content-length: \xb3\r\n\r\nabc",
    "a length in hexadecimals": OK + b"content-length: 0x3\r\n\r\nabc",
    "an endless length": OK + b"content-length: " + b"9" * 5000 + b"\r\n\r\n",
    "a length and chunks": OK + b"content-length: 3\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n",
    "chunks twice": OK + b"transfer-encoding: chunked, chunked\r\n\r\n0\r\n\r\n",
    "another coding": OK + b"transfer-encoding: gzip\r\n\r\nabc",
    "chunks that are packed": OK + b"transfer-encoding: gzip, chunked\r\n\r\n0\r\n\r\n",
    "a chunk of no size": CHUNKED + b"\r\nabc\r\n0\r\n\r\n",
    "a chunk of a negative size": CHUNKED + b"-3\r\nabc\r\n0\r\n\r\n",
    "a chunk of another size": CHUNKED + b"2\r\nabc\r\n0\r\n\r\n",
    "a chunk whose size is a name": CHUNKED + b"0x3\r\nabc\r\n0\r\n\r\n",
    "a chunk after another's end": CHUNKED + b"3\r\nabc0\r\n\r\n",
    "no last chunk": CHUNKED + b"3\r\nabc\r\n",
    "no end of the last chunk": CHUNKED + b"3\r\nabc\r\n0\r\n",
    "a short body": OK + b"content-length: 10\r\n\r\nabc",
    "a long line": OK + b"x: " + b"y" * 200_000 + b"\r\n\r\n",
    "many headers": OK + b"x: y\r\n" * 101 + b"\r\n",
    "an endless head": OK + b"x: y\r\n" * 10_000,
    "answers that say that one will follow": b"HTTP/1.1 100 Continue\r\n\r\n" * 200,
}


@pytest.mark.parametrize("data", HOSTILE.values(), ids=HOSTILE.keys())
@settings(max_examples=10, deadline=None)
@given(sizes=st.lists(st.sampled_from([1, 2, 7, 100, 4096]), min_size=1, max_size=4))
def test_what_is_no_whole_answer_is_an_error_however_it_arrives(data: bytes, sizes: list[int]) -> None:
    """G47."""
    if len(data) > 1000:
        sizes = [4096 * size for size in sizes]
    with pytest.raises(AnswerError) as caught:
        read(data, sizes)
    assert "0x" not in str(caught.value)


FRAMED = [
    name for name, (data, *_) in WHOLE.items() if "until the end" not in name and "more than" not in name
]


@pytest.mark.parametrize("name", FRAMED)
def test_an_answer_that_is_cut_off_anywhere_is_an_error(name: str) -> None:
    """G47."""
    data = WHOLE[name][0]
    for end in range(len(data)):
        with pytest.raises(AnswerError):
            read(data[:end])
    read(data)


def test_as_many_headers_and_bytes_as_servers_send_are_taken() -> None:
    answer, _, free = read(OK + b"x: y\r\n" * 99 + b"content-length: 0\r\n\r\n")
    assert answer.headers["x"] == ", ".join(["y"] * 99)
    assert free
    answer, _, _ = read(OK + b"x: " + b"y" * 60_000 + b"\r\ncontent-length: 0\r\n\r\n")
    assert len(answer.headers["x"]) == 60_000


def test_the_answer_to_head_has_no_content() -> None:
    answer, content, free = read(OK + b"content-length: 1000\r\n\r\n", method="HEAD")
    assert (answer.headers["content-length"], content, free) == ("1000", b"", True)


names = st.text("abcdefXYZ-_.~!#$%&'*+^`|0189", min_size=1, max_size=12)
values = st.text(
    st.characters(min_codepoint=0x20, max_codepoint=0xFF, exclude_characters="\x7f"), max_size=20
)


@given(
    st.integers(200, 599).filter(lambda status: status not in (204, 304)),
    st.lists(st.tuples(names.filter(lambda name: name.lower() not in ("connection",)), values), max_size=6),
    st.binary(max_size=100),
    st.booleans(),
    some_sizes,
)
@settings(max_examples=50)
def test_whole_answers_are_read_as_http_client_reads_them(
    status: int, fields: list[tuple[str, str]], content: bytes, chunked: bool, sizes: list[int]
) -> None:
    body = (chunk(content) if content else b"") + b"0\r\n\r\n" if chunked else content
    framing = b"transfer-encoding: chunked" if chunked else b"content-length: %d" % len(content)
    head = "".join(f"{name}: {value}\r\n" for name, value in fields).encode("latin-1")
    data = b"HTTP/1.1 %d Some reason\r\n" % status + head + framing + b"\r\n\r\n" + body
    answer, got, free = read(data, sizes)
    assert (got, free) == (content, True)
    ours, theirs = socket.socketpair()
    with ours, theirs:
        theirs.sendall(data)
        theirs.shutdown(socket.SHUT_WR)
        reference = http.client.HTTPResponse(ours)
        reference.begin()
        assert (answer.status, answer.reason) == (reference.status, reference.reason)
        for name, _ in fields:
            # The standard library takes other characters for the ends of lines, and leaves spaces at ends.
            all_of = [value.strip(" \t") for other, value in fields if other.lower() == name.lower()]
            assert answer.headers[name.lower()] == ", ".join(all_of)
        assert reference.read() == got
        reference.close()


# Requests


@given(
    st.text("ABCxyz0123/?&=%+ \r\n\x7f\xe9\u20ac", min_size=1, max_size=12),
    st.lists(
        st.tuples(st.text("ab-: \r\n\0\xe9", max_size=5), st.text("ab: \t\r\n\0\x7f\xe9\u20ac", max_size=8))
    ),
)
def test_a_head_has_the_lines_that_were_meant_or_is_refused(
    target: str, fields: list[tuple[str, str]]
) -> None:
    """No header or path can smuggle in another one, or another request."""
    try:
        head = request_head("GET", target, fields)
    except ValueError:
        return
    first, *lines, empty, last = head.split(b"\r\n")
    assert first == f"GET {target} HTTP/1.1".encode()
    assert lines == [f"{name}: {value}".encode("latin-1") for name, value in fields]
    assert (empty, last) == (b"", b"")
    assert b"\n" not in b"".join([first, *lines])
    assert first.count(b" ") == 2


@pytest.mark.parametrize(
    ("target", "headers"),
    [
        ("/x", {"x-token": "secret\r\nx: y"}),
        ("/x", {"x-token": "secret\nx: y"}),
        ("/x", {"x-token": "secret\r\n folded"}),
        ("/x", {"x-token": "secret\0"}),
        ("/x", {"x-token": "secret\u20ac"}),
        ("/x", {"x-secret:y": "z"}),
        ("/x", {"x-secret ": "z"}),
        ("/x", {"": "secret"}),
        ("/secret HTTP/1.1\r\nx: y\r\n\r\n", {}),
        ("/sec ret", {}),
        ("/secret\u20ac", {}),
    ],
)
def test_what_http_does_not_allow_is_not_sent_and_not_shown(target: str, headers: dict[str, str]) -> None:
    with (
        answering(lambda peer, request: peer.answer()) as server,
        pytest.raises(InvalidArgumentException) as caught,
    ):
        Origin(server.url, CONFIG).request("POST", target, headers=headers, limit=None)
    assert "sec" not in str(caught.value)
    assert server.connections == []


# Connections


def fetch(origin: Origin, target: str) -> bytes:
    limit = TimeLimit(Deadline.after(LIMIT))
    return read_all(origin.request("GET", target, headers={}, limit=limit), limit)


@pytest.mark.parametrize("late", [False, True], ids=["together", "later"])
@pytest.mark.parametrize("chunked", [False, True], ids=["length", "chunks"])
def test_an_answer_that_nobody_asked_for_is_nobodys(late: bool, chunked: bool) -> None:
    """G16: a server that answers twice ends the connection, and no call gets the answer of another."""

    def twice(peer: Peer, request: Received) -> None:
        body = request.target.encode()
        first = CHUNKED + chunk(body) + b"0\r\n\r\n" if chunked else OK + b"content-length: 2\r\n\r\n" + body
        second = OK + b"content-length: 5\r\n\r\nwrong"
        if late:
            peer.send(first)
            assert done.wait(LIMIT)
            peer.send(second)
            sent.set()
        else:
            peer.send(first + second)
        peer.wait_for_end()

    done, sent = threading.Event(), threading.Event()

    with answering(twice) as server:
        origin = Origin(server.url, CONFIG)
        for number in range(5):
            assert fetch(origin, f"/{number}") == f"/{number}".encode()
            done.set()
            assert not late or sent.wait(LIMIT)
            done.clear()
            sent.clear()
        assert len(server.connections) == 5


def test_what_has_been_decrypted_but_not_read_is_nobodys_either(tmp_path: Path) -> None:
    """G16: the end of an answer, and what follows it, in one record of TLS."""

    def twice(peer: Peer, request: Received) -> None:
        peer.send(OK + b"content-length: 2\r\n\r\n")
        peer.send(request.target.encode() + OK + b"content-length: 5\r\n\r\nwrong")
        peer.wait_for_end()

    authority = trustme.CA()
    authority.cert_pem.write_to_path(tmp_path / "ca.pem")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("localhost").configure_cert(context)
    config = ConnectionConfig.resolve(api_key="k", ca_bundle=str(tmp_path / "ca.pem"))
    with answering(twice, context=context) as server:
        origin = Origin(f"https://localhost:{server.port}", config)
        for number in range(3):
            assert fetch(origin, f"/{number}") == f"/{number}".encode()
        assert len(server.connections) == 3


def test_an_answer_that_is_dropped_halfway_leaves_no_connection_to_others() -> None:
    with answering(lambda peer, request: peer.answer(body=b"x" * 100_000)) as server:
        origin = Origin(server.url, CONFIG)
        answer = origin.request("GET", "/", headers={}, limit=None)
        assert answer.block(10)
        del answer
        assert server.ended.acquire(timeout=LIMIT)
        assert fetch(origin, "/") == b"x" * 100_000
        assert len(server.connections) == 2


def test_an_answer_that_has_been_closed_does_not_seem_to_end() -> None:
    with answering(lambda peer, request: peer.answer(body=b"abc")) as server:
        answer = Origin(server.url, CONFIG).request("GET", "/", headers={}, limit=None)
        answer.close()
        with pytest.raises(AnswerError):
            answer.block()


def test_the_hosts_used_last_keep_their_connections(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pools, "_MAX_ROUTES", 3)
    with contextlib.ExitStack() as stack:
        servers = [stack.enter_context(answering(lambda peer, request: peer.answer())) for _ in range(4)]
        often, *others = (Origin(server.url, CONFIG) for server in servers)
        for origin in others * 2:
            fetch(often, "/")
            fetch(origin, "/")
        assert len(servers[0].connections) == 1
        assert [len(server.connections) for server in servers[1:]] == [2, 2, 2]


@pytest.mark.parametrize("content", [b"a" * 100, b""], ids=["some", "none"])
def test_content_in_a_coding_that_nobody_asked_for_is_a_failure(content: bytes) -> None:
    def respond(peer: Peer) -> None:
        peer.receive()
        peer.answer(body=content, content_encoding="br")

    with scripted(respond) as server, pytest.raises(Failure, match="coding 'br'"):
        fetch(Origin(server.url, CONFIG), "/")


def test_threads_may_go_to_ever_more_hosts_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pools, "_MAX_ROUTES", 16)
    monkeypatch.setattr(pools, "_idle", {})
    done: list[str] = []

    def go(host: str) -> None:
        for port in range(200):
            pools._idle_of(Route(False, host, port, None, None, None))
        done.append(host)

    threads = [threading.Thread(target=go, args=(f"host-{number}",)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(LIMIT)
    assert len(done) == 8
    assert 1 <= len(pools._idle) < 16 + 8
