"""Connections: deadlines that a dripping server cannot stretch, reuse, and what is said when they fail."""

from __future__ import annotations

import gc
import itertools
import socket
import threading
import time
import warnings
from collections.abc import Callable, Iterator

import pytest

from sandbox_sync.config import ConnectionConfig
from sandbox_sync.deadlines import Deadline
from sandbox_sync.errors import InvalidArgumentException
from sandbox_sync.transport import answers, pools
from sandbox_sync.transport.answers import failure_of, read_all
from sandbox_sync.transport.failures import Failure
from sandbox_sync.transport.http1 import BLOCK, NETWORK_ERRORS
from sandbox_sync.transport.pools import Origin
from sandbox_sync.transport.sockets import DeadlineSocket, TimeLimit, dial, time_limit
from tests.unit.wire_server import Peer, Received, WireServer, answering, chunk, scripted

CONFIG = ConnectionConfig.resolve(api_key="k", domain="example.org")


def fetch(server: WireServer, seconds: float | None = 5.0, *, silence: float | None = None) -> bytes:
    limit = time_limit(Deadline.after(seconds), silence)
    response = Origin(server.url, CONFIG).request("GET", "/x", headers={}, limit=limit)
    return read_all(response, limit)


def drip(data: bytes, every: float = 0.05) -> Callable[[Peer], None]:
    """Send a byte now and then, which keeps a timeout per read from ever firing."""

    def script(peer: Peer) -> None:
        peer.receive()
        for byte in itertools.cycle(data):
            peer.send(bytes([byte]))
            time.sleep(every)

    return script


def after_head(head: bytes, data: bytes) -> Callable[[Peer], None]:
    def script(peer: Peer) -> None:
        peer.receive()
        peer.send(head)
        for byte in itertools.cycle(data):
            peer.send(bytes([byte]))
            time.sleep(0.05)

    return script


SLOW = {
    "never answers": lambda peer: peer.wait_for_end(),
    "drips its head": drip(b"HTTP/1.1 200 OK\r\n" + b"x-filler: aaaaaaaaaaaaaaaaaaaaaaaaaaa\r\n" * 50),
    "drips its body": after_head(b"HTTP/1.1 200 OK\r\ncontent-length: 999999\r\n\r\n", b"a"),
    "drips its chunks": after_head(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n", b"1\r\na\r\n"),
    "drips until it closes": after_head(b"HTTP/1.1 500 OK\r\nconnection: close\r\n\r\n", b"a"),
}


@pytest.mark.parametrize("script", SLOW.values(), ids=SLOW.keys())
@pytest.mark.parametrize("limit", [0.5, 1.0])
def test_the_deadline_is_for_the_whole_call(script: Callable[[Peer], None], limit: float) -> None:
    """G2, G4: a server that accepts and is slow in any way costs request_timeout and no more."""
    with scripted(script) as server:
        begin = time.monotonic()
        with pytest.raises(Failure) as caught:
            fetch(server, limit)
        assert limit <= time.monotonic() - begin < limit + 0.5
    assert caught.value.reason == "deadline"


def test_time_that_is_spent_is_not_given_again() -> None:
    """G4: what comes late leaves little time to wait for the rest."""

    def late(peer: Peer) -> None:
        peer.receive()
        time.sleep(0.8)
        peer.send(b"HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\n")
        peer.wait_for_end()

    with scripted(late) as server:
        begin = time.monotonic()
        with pytest.raises(Failure):
            fetch(server, 1.0)
        assert 1.0 <= time.monotonic() - begin < 1.4


def test_an_upload_that_the_server_does_not_take_ends_at_the_deadline() -> None:
    with scripted(lambda peer: threading.Event().wait(5)) as server:
        begin = time.monotonic()
        with pytest.raises(Failure) as caught:
            Origin(server.url, CONFIG).request(
                "POST",
                "/x",
                headers={},
                body=itertools.repeat(b"x" * BLOCK),
                limit=time_limit(Deadline.after(0.5)),
            )
        assert 0.5 <= time.monotonic() - begin < 1.0
        assert (caught.value.reason, caught.value.sent) == ("deadline", True)


def test_silence_is_bounded_apart_from_the_whole() -> None:
    """G29: a stall ends a transfer; a slow one that moves goes on."""

    def slow_then_silent(peer: Peer) -> None:
        peer.receive()
        peer.send(b"HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\n")
        for _ in range(10):
            peer.send(b"x")
            time.sleep(0.1)
        stalled.append(time.monotonic())
        peer.wait_for_end()

    stalled: list[float] = []
    with scripted(slow_then_silent) as server:
        with pytest.raises(Failure) as caught:
            fetch(server, None, silence=0.4)
        assert 0.2 < time.monotonic() - stalled[0] < 0.9
    assert caught.value.reason == "silence"


def test_a_deadline_that_has_passed_sends_nothing() -> None:
    with answering(lambda peer, request: peer.answer()) as server:
        with pytest.raises(Failure) as caught:
            fetch(server, 0.0)
        assert (caught.value.reason, caught.value.sent) == ("deadline", False)
    assert server.connections == []


def test_connections_are_used_again() -> None:
    with answering(lambda peer, request: peer.answer(body=b"hello")) as server:
        assert [fetch(server) for _ in range(20)] == [b"hello"] * 20
        assert len(server.connections) == 1


@pytest.mark.parametrize("status", [200, 204, 404])
def test_answers_without_a_body_leave_the_connection_usable(status: int) -> None:
    with answering(lambda peer, request: peer.answer(status)) as server:
        assert [fetch(server) for _ in range(3)] == [b""] * 3
        assert len(server.connections) == 1


def test_a_connection_that_the_server_has_closed_is_not_used_again() -> None:
    """G45: a server that closes idle connections causes no errors, and each call is seen once."""

    def once(peer: Peer) -> None:
        request = peer.receive()
        assert request is not None
        server.requests.append(request)
        peer.answer(body=b"hello")

    with scripted(once) as server:
        for _ in range(5):
            assert fetch(server) == b"hello"
            assert server.ended.acquire(timeout=5)
        assert len(server.requests) == len(server.connections) == 5


def test_a_connection_that_idled_long_is_not_used_again(monkeypatch: pytest.MonkeyPatch) -> None:
    with answering(lambda peer, request: peer.answer()) as server:
        fetch(server)
        fetch(server)
        assert len(server.connections) == 1
        monkeypatch.setattr(pools, "MAX_IDLE_SECONDS", -1.0)
        fetch(server)
        assert len(server.connections) == 2


def test_no_more_connections_are_kept_than_are_of_use(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pools, "_MAX_IDLE", 4)
    barrier = threading.Barrier(12)

    def together(peer: Peer, request: Received) -> None:
        barrier.wait(10)
        peer.answer()

    with answering(together) as server:
        threads = [threading.Thread(target=fetch, args=(server,)) for _ in range(12)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(10)
        for _ in range(8):
            assert server.ended.acquire(timeout=5), "a surplus connection stays open"
        assert not server.ended.acquire(timeout=0.1)


def test_many_calls_at_once_do_not_wait_for_each_other(caplog: pytest.LogCaptureFixture) -> None:
    """G17: 200 calls that are held up, and one more that is not queued behind them."""
    release = threading.Event()

    def hold(peer: Peer, request: Received) -> None:
        if request.target == "/x":
            release.wait(20)
        peer.answer(body=request.target.encode())

    with answering(hold) as server:
        results: list[bytes] = []
        threads = [threading.Thread(target=lambda: results.append(fetch(server, 20))) for _ in range(200)]
        for thread in threads:
            thread.start()
        limit = time_limit(Deadline.after(5))
        response = Origin(server.url, CONFIG).request("GET", "/quick", headers={}, limit=limit)
        assert read_all(response, limit) == b"/quick"
        release.set()
        for thread in threads:
            thread.join(20)
        assert results == [b"/x"] * 200
    assert caplog.records == []


def test_threads_get_their_own_answers() -> None:
    """G16: no call gets the answer of another."""
    with answering(lambda peer, request: peer.answer(body=request.headers["nonce"].encode())) as server:
        origin = Origin(server.url, CONFIG)
        wrong: list[str] = []

        def work(name: int) -> None:
            for number in range(100):
                nonce = f"{name}-{number}"
                response = origin.request("GET", "/", headers={"nonce": nonce}, limit=None)
                if read_all(response, None) != nonce.encode():
                    wrong.append(nonce)

        threads = [threading.Thread(target=work, args=(name,)) for name in range(16)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(30)
        assert wrong == []
        assert len(server.requests) == 1600


BROKEN = {
    "closed at once": b"",
    "half a head": b"HTTP/1.1 200 OK\r\nconten",
    "not HTTP": b"SSH-2.0-OpenSSH_9.6\r\n",
    "a head that ends in its middle": b"HTTP/1.1 204 OK\r\nserver: x\r\n",
    "no length": b"HTTP/1.1 200 OK\r\n\r\nabc",
    "short body": b"HTTP/1.1 200 OK\r\ncontent-length: 10\r\n\r\nabc",
    "no last chunk": b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n" + chunk(b"abc"),
    "half a chunk": b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n5\r\nab",
    "no chunk size": b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\nzz\r\nab",
    "broken gzip": b"HTTP/1.1 200 OK\r\ncontent-encoding: gzip\r\ncontent-length: 3\r\n\r\nabc",
    "endless head": b"HTTP/1.1 200 OK\r\n" + b"x-a: b\r\n" * 1000,
}


@pytest.mark.parametrize("data", BROKEN.values(), ids=BROKEN.keys())
@pytest.mark.parametrize("end", [Peer.close, Peer.reset], ids=["closed", "reset"])
def test_a_broken_answer_is_a_failure_and_never_short(data: bytes, end: Callable[[Peer], None]) -> None:
    """G47: truncation is an error each time."""

    def script(peer: Peer) -> None:
        peer.receive()
        peer.send(data)
        end(peer)

    with scripted(script) as server, pytest.raises(Failure) as caught:
        fetch(server)
    assert (caught.value.reason, caught.value.sent) == ("broken", True)
    assert "0x" not in str(caught.value), "the address of an object of some library is of no use to anyone"


def test_an_answer_too_large_for_memory_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(answers, "MAX_MESSAGE", 1_000_000)

    def endless(peer: Peer) -> None:
        peer.receive()
        peer.send(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n")
        while True:
            peer.send(chunk(b"x" * 65536))

    with scripted(endless) as server, pytest.raises(Failure, match="larger than 1000000 bytes") as caught:
        fetch(server)
    assert caught.value.reason == "answer", "it would be no smaller the next time"


def test_nothing_was_sent_where_nobody_listens() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    for url in (f"http://127.0.0.1:{port}", f"https://127.0.0.1:{port}", "http://no-such-host.invalid"):
        with pytest.raises(Failure) as caught:
            Origin(url, CONFIG).request("POST", "/", headers={}, limit=time_limit(Deadline.after(20)))
        assert (caught.value.reason, caught.value.sent) == ("connect", False)


def test_the_callers_own_error_comes_back_as_it_is() -> None:
    class Mine(OSError):
        pass

    def body() -> Iterator[bytes]:
        yield b"some"
        raise Mine("disk on fire")

    with (
        answering(lambda peer, request: peer.answer()) as server,
        pytest.raises(Mine, match="disk on fire"),
    ):
        Origin(server.url, CONFIG).request("POST", "/", headers={}, body=body(), limit=None)


@pytest.mark.parametrize("value", ["secret\r\nx: y", "secret\u20ac"])
def test_a_header_that_cannot_be_sent_is_refused_without_being_shown(value: str) -> None:
    with (
        answering(lambda peer, request: peer.answer()) as server,
        pytest.raises(InvalidArgumentException) as caught,
    ):
        Origin(server.url, CONFIG).request("GET", "/", headers={"x-api-key": value}, limit=None)
    assert "secret" not in str(caught.value)


def test_a_dropped_answer_closes_its_connection_quietly() -> None:
    """G19: nothing is left open, and no ResourceWarning is caused."""
    head = b"HTTP/1.1 200 OK\r\ncontent-length: 1000\r\n\r\nabc"

    def script(peer: Peer) -> None:
        peer.receive()
        peer.send(head)
        peer.wait_for_end()

    with scripted(script) as server, warnings.catch_warnings():
        warnings.simplefilter("error")
        response = Origin(server.url, CONFIG).request("GET", "/", headers={}, limit=None)
        response.close()
        del response
        gc.collect()
        assert server.ended.acquire(timeout=5)


def test_a_blocked_read_can_be_interrupted_from_another_thread() -> None:
    def script(peer: Peer) -> None:
        peer.receive()
        peer.send(b"HTTP/1.1 200 OK\r\n\r\n")
        peer.wait_for_end()

    with scripted(script) as server:
        response = Origin(server.url, CONFIG).request("GET", "/", headers={}, limit=None)
        timer = threading.Timer(0.2, response.interrupt)
        timer.start()
        begin = time.monotonic()
        assert list(response.blocks()) == []
        assert time.monotonic() - begin < 2
        timer.join()
        response.close()


def test_limits_can_be_changed_while_an_answer_is_read() -> None:
    def script(peer: Peer) -> None:
        peer.receive()
        peer.send(b"HTTP/1.1 200 OK\r\ncontent-length: 10\r\n\r\n")
        peer.wait_for_end()

    with scripted(script) as server:
        response = Origin(server.url, CONFIG).request("GET", "/", headers={}, limit=None)
        limit = time_limit(Deadline.after(0.3))
        response.bound(limit)
        begin = time.monotonic()
        with pytest.raises(NETWORK_ERRORS) as caught:
            response.block()
        assert 0.3 <= time.monotonic() - begin < 0.8
        assert failure_of(caught.value, limit).reason == "deadline"
        response.close()


def test_a_plain_timeout_bounds_all_operations_together() -> None:
    """What is set as a number, as libraries do, is a deadline, too."""
    ours, theirs = socket.socketpair()
    sock = DeadlineSocket(fileno=ours.detach())
    stop = threading.Event()

    def write() -> None:
        while not stop.wait(0.05):
            theirs.send(b"x")

    writer = threading.Thread(target=write)
    writer.start()
    try:
        sock.settimeout(0.5)
        begin = time.monotonic()
        with pytest.raises(TimeoutError):
            all(sock.recv_into(bytearray(10)) for _ in itertools.count())
        assert 0.5 <= time.monotonic() - begin < 1.0
    finally:
        stop.set()
        writer.join()
        sock.close()
        theirs.close()


def test_a_time_limit_is_the_nearer_of_its_bounds() -> None:
    assert 0.9 < (TimeLimit(Deadline.after(1.0), 5.0).left() or 0.0) <= 1.0
    assert TimeLimit(Deadline.after(None), 5.0).left() == 5.0
    assert TimeLimit(Deadline.after(0.0)).left() == 0.0
    assert time_limit(Deadline.after(None)) is None


def test_names_under_localhost_are_this_machine() -> None:
    with answering(lambda peer, request: peer.answer(body=request.headers["host"].encode())) as server:
        url = f"http://49983-i1.localhost:{server.port}"
        response = Origin(url, CONFIG).request("GET", "/", headers={}, limit=time_limit(Deadline.after(5)))
        assert read_all(response, None) == f"49983-i1.localhost:{server.port}".encode()


def test_connecting_shares_the_time_among_the_addresses(monkeypatch: pytest.MonkeyPatch) -> None:
    """G4: a name with several dead addresses takes no longer than the deadline; the last has its chance."""
    with (
        socket.create_server(("127.0.0.1", 0), backlog=0) as full,
        socket.create_server(("127.0.0.1", 0)) as good,
    ):
        # A listener whose queue is full does not answer, as a host that drops packets does not.
        waiting = [socket.socket() for _ in range(4)]
        for sock in waiting:
            sock.setblocking(False)
            sock.connect_ex(full.getsockname())
        kind = (socket.AF_INET, socket.SOCK_STREAM, 6, "")
        found = [(*kind, full.getsockname()), (*kind, full.getsockname()), (*kind, good.getsockname())]
        monkeypatch.setattr(socket, "getaddrinfo", lambda *args, **options: found)
        begin = time.monotonic()
        sock = dial("three.example", 80, time_limit(Deadline.after(0.9)))
        assert sock.getpeername() == good.getsockname()
        assert 0.5 < time.monotonic() - begin < 0.9
        sock.close()
        begin = time.monotonic()
        found.pop()
        with pytest.raises(OSError, match="timed out"):
            dial("two.example", 80, time_limit(Deadline.after(0.6)))
        assert 0.5 < time.monotonic() - begin < 0.9
        for sock in waiting:
            sock.close()


@pytest.mark.parametrize("host", ["a" * 70, "exa mple", "\udcff"])
def test_what_is_no_host_name_is_said_to_be_none(host: str) -> None:
    with pytest.raises(OSError, match=r"host name|Name or service|No address|not known"):
        dial(host, 80, time_limit(Deadline.after(5.0)))


@pytest.mark.parametrize(
    ("body", "pieces"),
    [(None, 1), (b"", 1), (b"short", 1), (b"l" * 100_000, 2), ([b"in ", b"parts"], 4)],
    ids=["none", "empty", "short", "long", "parts"],
)
def test_a_short_body_goes_out_with_the_head(
    monkeypatch: pytest.MonkeyPatch, body: bytes | list[bytes] | None, pieces: int
) -> None:
    sent: list[bytes] = []
    sendall = DeadlineSocket.sendall

    def send(self: DeadlineSocket, data: bytes) -> None:
        sent.append(data)
        sendall(self, data)

    monkeypatch.setattr(DeadlineSocket, "sendall", send)
    with answering(lambda peer, request: peer.answer(200, request.body)) as server:
        limit = time_limit(Deadline.after(5))
        response = Origin(server.url, CONFIG).request("POST", "/x", headers={}, body=body, limit=limit)
        assert read_all(response, limit) == b"".join([body] if isinstance(body, bytes) else body or [])
    assert len(sent) == pieces
