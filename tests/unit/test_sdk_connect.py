"""Calls in the Connect protocol, against a server that does exactly what a test says."""

from __future__ import annotations

import gc
import gzip
import json
import random
import threading
import time
from collections.abc import Callable, Iterator

import pytest
from sandbox_sync_rpc import process_pb2 as pb

from sandbox_sync import errors
from sandbox_sync.config import ConnectionConfig
from sandbox_sync.errors import SandboxException
from sandbox_sync.transport import connect
from sandbox_sync.transport.envd import EnvdConnection
from tests.unit.wire_server import (
    END,
    STREAM_HEAD,
    Peer,
    Received,
    WireServer,
    answering,
    chunk,
    frame,
    scripted,
)

GONE = json.dumps({"sandboxId": "i1", "message": "The sandbox was not found", "code": 502}).encode()


def envd_at(server: WireServer, *, token: str | None = None, keepalive: float = 50.0) -> EnvdConnection:
    config = ConnectionConfig.resolve(api_key="k", sandbox_url=server.url)
    return EnvdConnection(config, "i1", access_token=token, keepalive_interval=keepalive)


def event(data: bytes = b"", pid: int = 0) -> bytes:
    message = pb.StartResponse()
    if pid:
        message.event.start.pid = pid
    else:
        message.event.data.stdout = data
    return message.SerializeToString()


def proto(peer: Peer, message: bytes = b"") -> None:
    peer.answer(body=message, content_type="application/proto")


def list_of(envd: EnvdConnection, seconds: float = 5.0) -> pb.ListResponse:
    return envd.unary(envd.process.List, pb.ListRequest(), request_timeout=seconds)


def start(envd: EnvdConnection, **options: float) -> Iterator[pb.StartResponse]:
    return iter(envd.stream(envd.process.Start, pb.StartRequest(), request_timeout=5.0, **options))  # type: ignore[arg-type]


# Unary calls


def test_a_unary_call_on_the_wire() -> None:
    answer = pb.ListResponse(processes=[pb.ProcessInfo(pid=7, tag="t")])
    with answering(lambda peer, request: proto(peer, answer.SerializeToString())) as server:
        envd = envd_at(server, token="secret")
        assert envd.unary(envd.process.List, pb.ListRequest(), user="root", request_timeout=9) == answer
    (request,) = server.requests
    assert (request.method, request.target, request.body) == ("POST", "/process.Process/List", b"")
    assert 8000 < int(request.headers.pop("connect-timeout-ms")) <= 9000
    assert request.headers.pop("user-agent").startswith("sandbox-sync/")
    assert request.headers == {
        "host": f"127.0.0.1:{server.port}",
        "accept-encoding": "identity",
        "authorization": "Basic cm9vdDo=",
        "connect-protocol-version": "1",
        "content-length": "0",
        "content-type": "application/proto",
        "e2b-sandbox-id": "i1",
        "e2b-sandbox-port": "49983",
        "x-access-token": "secret",
    }


def test_without_a_limit_no_timeout_is_sent() -> None:
    """Zero on the wire would mean that the time is up already."""
    with answering(lambda peer, request: proto(peer)) as server:
        list_of(envd_at(server), 0)
    assert "connect-timeout-ms" not in server.requests[0].headers


@pytest.mark.parametrize("encoding", ["gzip", "identity"])
def test_a_compressed_answer_is_read(encoding: str) -> None:
    answer = pb.ListResponse(processes=[pb.ProcessInfo(pid=7)])
    data = answer.SerializeToString()
    body = gzip.compress(data) if encoding == "gzip" else data

    def respond(peer: Peer, request: Received) -> None:
        peer.answer(body=body, content_type="application/proto; charset=x", content_encoding=encoding)

    with answering(respond) as server:
        assert list_of(envd_at(server)) == answer


@pytest.mark.parametrize(
    ("status", "body", "expected"),
    [
        (404, b'{"code":"not_found","message":"process with pid 9 not found"}', "NotFoundException"),
        (400, b'{"code":"invalid_argument","message":"cwd"}', "InvalidArgumentException"),
        (401, b'{"code":401,"message":"unauthorized access"}', "AuthenticationException"),
        (403, b'{"code":403,"sandboxId":"i1","message":"no"}', "AuthenticationException"),
        (502, GONE, "SandboxNotRunningException"),
        (
            502,
            b'{"message":"The sandbox is running but port is not open","code":502}',
            "PortNotOpenException",
        ),
        (429, b'{"message":"too many connections","code":429}', "RateLimitException"),
        (500, b'{"code":"internal","message":"x"}', "SandboxException"),
        (307, b"", "SandboxException"),
        (415, b"", "SandboxException"),
    ],
)
def test_errors_of_servers_and_proxies(status: int, body: bytes, expected: str) -> None:
    def respond(peer: Peer, request: Received) -> None:
        peer.answer(status, body, content_type="application/json", should_retry="false")

    with answering(respond) as server, pytest.raises(SandboxException) as caught:
        list_of(envd_at(server))
    assert type(caught.value).__name__ == expected
    assert caught.value.status == status
    assert caught.value.sandbox_id == "i1"
    assert caught.value.path == "/process.Process/List"


def test_an_unclear_502_is_cleared_up_by_a_health_check() -> None:
    def respond(peer: Peer, request: Received) -> None:
        if request.target == "/health":
            peer.answer(502, GONE)
        else:
            peer.answer(502, b"<html>Bad Gateway</html>", should_retry="false")

    with answering(respond) as server, pytest.raises(errors.SandboxNotRunningException) as caught:
        list_of(envd_at(server))
    assert caught.value.sandbox_state == "gone"
    assert [request.target for request in server.requests] == ["/process.Process/List", "/health"]


def test_a_token_that_the_server_quotes_is_not_in_the_error() -> None:
    def respond(peer: Peer, request: Received) -> None:
        words = f"bad token {request.headers['x-access-token']}"
        peer.answer(401, json.dumps({"code": "unauthenticated", "message": words}).encode())

    with (
        answering(respond) as server,
        pytest.raises(errors.AuthenticationException, match="bad token") as caught,
    ):
        list_of(envd_at(server, token="tok-secret"))
    assert "tok-secret" not in str(caught.value)


def test_an_answer_that_is_not_connect_is_said_to_be_none() -> None:
    def respond(peer: Peer, request: Received) -> None:
        peer.answer(body=b"<html>Log in to the hotel</html>", content_type="text/html")

    with answering(respond) as server, pytest.raises(SandboxException, match="text/html"):
        list_of(envd_at(server))


def test_a_message_that_cannot_be_decoded_is_an_error_of_ours() -> None:
    with answering(lambda peer, request: proto(peer, b"\xff\xff\xff")) as server:
        with pytest.raises(SandboxException, match="cannot be decoded"):
            list_of(envd_at(server))
        assert list(server.requests), "the call was made"


def test_a_harmless_call_is_made_again_when_its_connection_breaks() -> None:
    """G45: the connection is closed under a call, which is repeated because it changes nothing."""

    def respond(peer: Peer, request: Received) -> None:
        if len(server.requests) == 2:
            peer.reset()
        else:
            proto(peer)

    with answering(respond) as server:
        envd = envd_at(server)
        list_of(envd)
        list_of(envd)
        assert len(server.requests) == 3


def test_a_call_that_may_have_run_is_not_made_again() -> None:
    """G45: the error says that it may have been executed."""

    def respond(peer: Peer, request: Received) -> None:
        if request.target == "/health":
            peer.answer(204)
        else:
            peer.reset()

    with answering(respond) as server:
        envd = envd_at(server)
        with pytest.raises(errors.ConnectionException) as caught:
            envd.unary(envd.process.SendInput, pb.SendInputRequest(), request_timeout=5)
        assert caught.value.maybe_executed
        assert caught.value.sandbox_state == "alive"
        assert [request.target for request in server.requests] == ["/process.Process/SendInput", "/health"]


def test_a_unary_call_ends_at_its_deadline() -> None:
    """G2, G4, G5: the error names the clock."""
    with scripted(lambda peer: peer.wait_for_end()) as server:
        begin = time.monotonic()
        with pytest.raises(errors.RequestTimeoutException) as caught:
            list_of(envd_at(server), 0.5)
        assert 0.5 <= time.monotonic() - begin < 1.0
    assert (caught.value.clock, caught.value.limit) == ("request_timeout", 0.5)


# Streams


def streaming(*frames: bytes) -> Callable[[Peer, Received], None]:
    def respond(peer: Peer, request: Received) -> None:
        peer.send(STREAM_HEAD)
        for data in frames:
            peer.send(chunk(data))
        peer.send(b"0\r\n\r\n")

    return respond


def test_a_stream_on_the_wire() -> None:
    with answering(streaming(frame(event(pid=3)), frame(event(b"out")), END)) as server:
        envd = envd_at(server)
        request = pb.StartRequest(process=pb.ProcessConfig(cmd="ls"))
        stream = envd.stream(envd.process.Start, request, user="user", timeout=7)
        assert [message.event.WhichOneof("event") for message in stream] == ["start", "data"]
    (received,) = server.requests
    assert received.target == "/process.Process/Start"
    assert received.body == frame(request.SerializeToString())
    assert received.headers["content-type"] == "application/connect+proto"
    assert received.headers["connect-timeout-ms"] == "7000"
    assert received.headers["keepalive-ping-interval"] == "50"
    assert received.headers["authorization"] == "Basic dXNlcjo="


def test_a_stream_leaves_its_connection_to_the_next_call() -> None:
    with answering(streaming(frame(event(b"x")), END)) as server:
        envd = envd_at(server)
        for _ in range(5):
            assert len(list(start(envd))) == 1
        assert len(server.connections) == 1


def test_output_arrives_as_it_is_sent_whatever_the_cuts() -> None:
    """G9: the transcript is exact for any cutting of the bytes into frames, chunks and packets."""
    randomness = random.Random(7)
    for _ in range(30):
        pieces = [randomness.randbytes(randomness.choice([0, 1, 20, 70_000])) for _ in range(20)]
        stream = b"".join(frame(event(piece)) for piece in pieces) + END
        cuts = sorted(randomness.sample(range(len(stream)), 25))
        chunks = [stream[a:b] for a, b in zip([0, *cuts], [*cuts, len(stream)], strict=True)]
        with answering(streaming(*filter(None, chunks))) as server:
            received = [message.event.data.stdout for message in start(envd_at(server))]
        assert received == pieces


def test_a_message_larger_than_any_read_is_put_together() -> None:
    """G39: 8 MiB in one event."""
    data = random.Random(1).randbytes(8 * 1024 * 1024)
    with answering(streaming(frame(event(data)), END)) as server:
        (message,) = start(envd_at(server))
    assert message.event.data.stdout == data


def test_an_event_arrives_at_once_although_no_more_follow() -> None:
    """G48: reading ahead does not hold back what is there."""
    proceed = threading.Event()

    def respond(peer: Peer, request: Received) -> None:
        peer.send(STREAM_HEAD)
        for number in range(5):
            proceed.wait(10)
            proceed.clear()
            sent.append(time.monotonic())
            peer.send(chunk(frame(event(b"%d" % number))))
        proceed.wait(10)
        peer.send(chunk(END) + b"0\r\n\r\n")

    sent: list[float] = []
    with answering(respond) as server:
        proceed.set()
        for message in start(envd_at(server)):
            assert time.monotonic() - sent[-1] < 0.05
            assert message.event.data.stdout == b"%d" % (len(sent) - 1)
            proceed.set()


def test_a_stream_without_chunks_is_read_as_it_arrives() -> None:
    """Proxies that speak HTTP/1.0 end an answer by closing the connection."""
    proceed = threading.Event()

    def script(peer: Peer) -> None:
        peer.receive()
        peer.send(b"HTTP/1.0 200 OK\r\ncontent-type: application/connect+proto\r\n\r\n")
        peer.send(frame(event(b"first")))
        proceed.wait(10)
        peer.send(END)

    with scripted(script) as server:
        messages = start(envd_at(server))
        assert next(messages).event.data.stdout == b"first"
        proceed.set()
        assert list(messages) == []


def test_compressed_frames_are_read() -> None:
    data = event(b"x" * 1000)
    end = frame(gzip.compress(b"{}"), 3)
    with answering(streaming(frame(gzip.compress(data), 1), frame(data), end)) as server:
        assert [len(message.event.data.stdout) for message in start(envd_at(server))] == [1000, 1000]


BAD_FRAMES = {
    "unknown flag": frame(b"", 4),
    "all flags": frame(b"", 255),
    "not gzip": frame(b"not gzip", 1),
    "gzip cut short": frame(gzip.compress(b"x" * 100)[:-9], 1),
    "huge": b"\x00\xff\xff\xff\xff",
    "not protobuf": frame(b"\xff\xff"),
    "end is a list": frame(b"[]", 2),
    "end is not JSON": frame(b"{", 2),
    "error is a number": frame(b'{"error":7}', 2),
    "end nests deeply": frame(b"[" * 100_000, 2),
}


@pytest.mark.parametrize("bad", BAD_FRAMES.values(), ids=BAD_FRAMES.keys())
def test_a_frame_that_breaks_the_protocol_is_an_error(bad: bytes) -> None:
    with answering(streaming(frame(event(b"x")), bad)) as server, pytest.raises(SandboxException):
        list(start(envd_at(server)))


def test_a_compressed_frame_cannot_fill_the_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connect, "MAX_MESSAGE", 1_000_000)
    bomb = frame(gzip.compress(b"\0" * 50_000_000), 1)
    with answering(streaming(bomb)) as server, pytest.raises(SandboxException, match="larger than 1000000"):
        list(start(envd_at(server)))


@pytest.mark.parametrize("first", [b"", frame(event(pid=1))], ids=["at once", "after a message"])
@pytest.mark.parametrize(
    ("error", "expected"),
    [
        ({"code": "not_found", "message": "no such pid"}, "NotFoundException"),
        ({"code": "invalid_argument", "message": "cwd '/x' does not exist"}, "InvalidArgumentException"),
        ({"code": "unavailable", "message": "The sandbox was not found"}, "SandboxNotRunningException"),
        ({"code": "deadline_exceeded", "message": ""}, "CommandTimeoutException"),
        ({"code": "resource_exhausted"}, "RateLimitException"),
        ({"code": "nonsense", "message": None}, "SandboxException"),
        ({}, "SandboxException"),
    ],
)
def test_the_last_frame_tells_of_errors(first: bytes, error: dict[str, str], expected: str) -> None:
    end = frame(json.dumps({"error": error}).encode(), 2)
    with (
        answering(streaming(*filter(None, [first, end]))) as server,
        pytest.raises(SandboxException) as caught,
    ):
        list(start(envd_at(server), timeout=3))
    assert type(caught.value).__name__ == expected
    assert caught.value.sandbox_id == "i1"


@pytest.mark.parametrize("status", [502, 404])
def test_a_proxy_that_refuses_a_stream_is_understood(status: int) -> None:
    body = GONE if status == 502 else b'{"message":"nothing here","path":"/x","code":404}'
    expected = errors.SandboxNotRunningException if status == 502 else errors.NotFoundException
    with answering(lambda peer, request: peer.answer(status, body)) as server, pytest.raises(expected):
        list(start(envd_at(server)))


def test_a_stream_without_its_last_frame_is_an_error_although_its_answer_is_whole() -> None:
    """G12, G47: HTTP has nothing to complain of."""
    without_length = b"HTTP/1.1 200 OK\r\ncontent-type: application/connect+proto\r\n\r\n"

    def close_delimited(peer: Peer, request: Received) -> None:
        peer.send(without_length + frame(event(b"x")))
        peer.close()

    for respond in (streaming(frame(event(b"x"))), streaming(), close_delimited):
        with answering(respond) as server, pytest.raises(errors.IncompleteCallException):
            list(start(envd_at(server)))


def test_a_stream_cut_at_any_byte_is_an_error_and_never_an_end() -> None:
    """G12: cut a recorded stream at every offset."""
    head = b"HTTP/1.1 200 OK\r\ncontent-type: application/connect+proto\r\ntransfer-encoding: chunked\r\n\r\n"
    recorded = head + chunk(frame(event(pid=5)))
    # A message has arrived whole when its frame has; the end of its chunk may be missing.
    first = len(recorded) - len(b"\r\n")
    recorded += chunk(frame(event(b"partial output")))
    second = len(recorded) - len(b"\r\n")
    recorded += chunk(END)
    recorded = recorded[: -len(b"\r\n")]
    offsets = iter(range(len(recorded)))

    def respond(peer: Peer, request: Received) -> None:
        if request.target == "/health":
            peer.answer(204)
            return
        peer.send(recorded[: next(offsets)])
        peer.close()

    with answering(respond) as server:
        envd = envd_at(server)
        for offset in range(len(recorded)):
            received: list[pb.StartResponse] = []
            with pytest.raises(errors.IncompleteCallException) as caught:
                received.extend(start(envd))
            assert type(caught.value) is errors.ConnectionException, offset
            assert caught.value.sandbox_state == "alive"
            # What had arrived whole was handed over before the error.
            assert len(received) == (offset >= first) + (offset >= second)


@pytest.mark.parametrize(
    ("health", "expected", "state"),
    [
        ((204, b""), errors.ConnectionException, "alive"),
        ((502, GONE), errors.SandboxNotRunningException, "gone"),
        ((502, b"<html>"), errors.ConnectionException, "unknown"),
        ((500, b""), errors.ConnectionException, "unknown"),
    ],
)
def test_after_a_cut_gone_is_said_only_with_evidence(
    health: tuple[int, bytes], expected: type[SandboxException], state: str
) -> None:
    """G12."""

    def respond(peer: Peer, request: Received) -> None:
        if request.target == "/health":
            peer.answer(*health)
        else:
            peer.send(STREAM_HEAD + chunk(frame(event(pid=1))))
            peer.reset()

    with answering(respond) as server, pytest.raises(errors.IncompleteCallException) as caught:
        list(start(envd_at(server)))
    assert type(caught.value) is expected
    assert caught.value.sandbox_state == state


def test_a_server_that_never_begins_a_stream_costs_request_timeout() -> None:
    """G2: streams are opened within request_timeout, whatever their own timeout."""

    def only_the_head(peer: Peer) -> None:
        peer.receive()
        peer.send(STREAM_HEAD)
        peer.wait_for_end()

    for script in (Peer.wait_for_end, only_the_head):
        with scripted(script) as server:
            envd = envd_at(server)
            begin = time.monotonic()
            with pytest.raises(errors.RequestTimeoutException) as caught:
                envd.stream(envd.process.Start, pb.StartRequest(), timeout=0, request_timeout=0.5)
            assert 0.5 <= time.monotonic() - begin < 1.0
            assert caught.value.clock == "request_timeout"


def stalling(*frames: bytes) -> Callable[[Peer, Received], None]:
    def respond(peer: Peer, request: Received) -> None:
        if request.target == "/health":
            peer.answer(204)
            return
        peer.send(STREAM_HEAD)
        for data in frames:
            peer.send(chunk(data))
        peer.wait_for_end()

    return respond


def test_a_stream_that_falls_silent_is_broken_whatever_its_timeout() -> None:
    """G1: three keepalives are missing."""
    with answering(stalling(frame(event(pid=1)))) as server:
        stream = start(envd_at(server, keepalive=0.2), timeout=0)
        next(stream)
        begin = time.monotonic()
        with pytest.raises(errors.SandboxUnreachableException) as caught:
            next(stream)
        assert 0.5 < time.monotonic() - begin < 1.5
    assert (caught.value.clock, caught.value.sandbox_state) == ("silence", "alive")


def test_the_servers_clock_fires_first_and_ours_makes_sure() -> None:
    """G1, G3: run(timeout=t) ends within t + 2 s; the server is given a second more than it was told."""
    with answering(stalling(frame(event(pid=1)))) as server:
        begin = time.monotonic()
        with pytest.raises(errors.CommandTimeoutException) as caught:
            list(start(envd_at(server), timeout=0.5))
        assert 1.4 < time.monotonic() - begin < 2.5
    assert (caught.value.clock, caught.value.limit) == ("timeout", 0.5)
    assert server.requests[0].headers["connect-timeout-ms"] == "500"


def test_a_chatty_stream_ends_at_its_deadline() -> None:
    """G4: output that never stops does not keep a timeout from firing."""

    def respond(peer: Peer, request: Received) -> None:
        peer.send(STREAM_HEAD)
        while True:
            peer.send(chunk(frame(event(b"spam" * 100)) * 50))

    with answering(respond) as server:
        begin = time.monotonic()
        with pytest.raises(errors.CommandTimeoutException):
            for _ in start(envd_at(server), timeout=0.5):
                pass
        assert 1.4 < time.monotonic() - begin < 2.5


def test_a_timeout_of_the_clients_own_is_not_told_to_the_server() -> None:
    with answering(stalling(frame(event(pid=1)))) as server:
        envd = envd_at(server)
        begin = time.monotonic()
        stream = envd.stream(envd.process.Start, pb.StartRequest(), timeout=0.5, tell_server=False)
        with pytest.raises(errors.CommandTimeoutException):
            list(stream)
        assert 0.5 <= time.monotonic() - begin < 1.0
    assert "connect-timeout-ms" not in server.requests[0].headers


def test_a_blocked_stream_is_cancelled_from_another_thread_at_once() -> None:
    with answering(stalling(frame(event(pid=1)))) as server:
        envd = envd_at(server)
        stream = envd.stream(envd.process.Start, pb.StartRequest())
        next(stream)
        timer = threading.Timer(0.2, stream.cancel)
        timer.start()
        begin = time.monotonic()
        assert list(stream) == []
        assert time.monotonic() - begin < 0.7
        assert stream.cancelled
        timer.join()
        stream.cancel()
        assert server.ended.acquire(timeout=5), "the server sees the end"


def test_cancelling_between_answers_ends_the_stream_quietly() -> None:
    with answering(stalling(frame(event(pid=1)), frame(event(b"x")))) as server:
        envd = envd_at(server)
        stream = envd.stream(envd.process.Start, pb.StartRequest())
        next(stream)
        stream.cancel()
        assert list(stream) == []
        assert server.ended.acquire(timeout=5)


@pytest.mark.parametrize("iterated", [False, True])
def test_a_dropped_stream_ends_on_the_server(iterated: bool) -> None:
    """G11: no handle, no connection."""
    with answering(stalling(frame(event(pid=1)), frame(event(b"x")))) as server:
        envd = envd_at(server)
        stream = envd.stream(envd.process.Start, pb.StartRequest())
        if iterated:
            next(stream)
        gc.disable()
        try:
            del stream
            assert server.ended.acquire(timeout=1), "dropping it is enough; no garbage collector is needed"
        finally:
            gc.enable()


def test_cancelling_a_finished_stream_does_not_touch_the_calls_after_it() -> None:
    """Its connection serves others by then."""
    held = threading.Event()

    def respond(peer: Peer, request: Received) -> None:
        if request.target.endswith("Start"):
            streaming(frame(event(b"x")), END)(peer, request)
        else:
            held.wait(10)
            proto(peer)

    with answering(respond) as server:
        envd = envd_at(server)
        stream = envd.stream(envd.process.Start, pb.StartRequest())
        assert len(list(stream)) == 1
        results: list[object] = []
        thread = threading.Thread(target=lambda: results.append(list_of(envd)))
        thread.start()
        while len(server.requests) < 2:
            time.sleep(0.01)
        stream.cancel()
        held.set()
        thread.join(10)
        assert results == [pb.ListResponse()]
        assert len(server.connections) == 1


def test_a_stream_that_is_over_is_not_held_up_by_a_server_that_does_not_end_it() -> None:
    with answering(stalling(frame(event(b"x")), END)) as server:
        begin = time.monotonic()
        assert len(list(start(envd_at(server), timeout=0))) == 1
        assert time.monotonic() - begin < 1.5


def test_opening_is_tried_again_only_where_nothing_was_sent() -> None:
    """A command that may have started is not started twice."""

    def respond(peer: Peer, request: Received) -> None:
        if request.target == "/health":
            peer.answer(204)
        else:
            peer.reset()

    with answering(respond) as server:
        envd = envd_at(server)
        with pytest.raises(errors.ConnectionException) as caught:
            envd.stream(envd.process.Start, pb.StartRequest())
        assert caught.value.maybe_executed
        assert [request.target for request in server.requests] == ["/process.Process/Start", "/health"]


def test_a_client_stream_on_the_wire() -> None:
    with answering(streaming(frame(b""), END)) as server:
        envd = envd_at(server)
        sent = [pb.StreamInputRequest(), pb.StreamInputRequest()]
        sent[0].start.process.pid = 3
        sent[1].data.input.stdin = b"hello"
        answer = envd.client_stream(envd.process.StreamInput, iter(sent), request_timeout=5)
        assert answer == pb.StreamInputResponse()
    assert server.requests[0].body == b"".join(frame(message.SerializeToString()) for message in sent)


@pytest.mark.parametrize("error", [OSError("disk"), ValueError("bug")])
def test_an_error_of_the_callers_iterator_comes_back_as_it_is(error: Exception) -> None:
    def messages() -> Iterator[pb.StreamInputRequest]:
        yield pb.StreamInputRequest()
        raise error

    with answering(streaming(frame(b""), END)) as server:
        envd = envd_at(server)
        with pytest.raises(type(error)) as caught:
            envd.client_stream(envd.process.StreamInput, messages(), request_timeout=5)
    assert caught.value is error


def test_a_client_stream_that_fails_says_why() -> None:
    end = frame(b'{"error":{"code":"not_found","message":"process with pid 3 not found"}}', 2)
    with answering(streaming(end)) as server:
        envd = envd_at(server)
        with pytest.raises(errors.NotFoundException, match="pid 3"):
            envd.client_stream(envd.process.StreamInput, iter([]), request_timeout=5)


def test_health() -> None:
    """G28: not running is said only on the service's word; a closed port is something else."""
    answers = {204: b"", 502: GONE}
    for status, body in answers.items():
        with answering(lambda peer, request, s=status, b=body: peer.answer(s, b)) as server:  # type: ignore[misc]
            assert envd_at(server).is_healthy(5) is (status == 204)
    closed = b'{"message":"The sandbox is running but port is not open"}'
    with (
        answering(lambda peer, request: peer.answer(502, closed, should_retry="false")) as server,
        pytest.raises(errors.PortNotOpenException),
    ):
        envd_at(server).is_healthy(5)
    with scripted(lambda peer: peer.wait_for_end()) as server, pytest.raises(errors.RequestTimeoutException):
        envd_at(server).is_healthy(0.3)
