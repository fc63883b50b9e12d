"""Calls over gRPC, against a real server. What the Connect channel does with them is the measure."""

from __future__ import annotations

import gc
import threading
import time
from collections.abc import Iterator
from typing import Any

import grpc
import pytest
from sandbox_sync_rpc import filesystem_pb2 as fs
from sandbox_sync_rpc import process_pb2 as pb

from sandbox_sync import errors
from sandbox_sync.config import ConnectionConfig
from sandbox_sync.errors import SandboxException
from sandbox_sync.transport import grpc_connections
from sandbox_sync.transport.envd import EnvdConnection
from tests.unit.grpc_server import serving
from tests.unit.wire_server import Peer, Received, answering, scripted


def envd_at(url: str, *, keepalive: float = 50.0, **options: object) -> EnvdConnection:
    config = ConnectionConfig.resolve(api_key="k", sandbox_url=url, transport="grpc", **options)  # type: ignore[arg-type]
    return EnvdConnection(config, "i1", access_token="secret", keepalive_interval=keepalive)


def started(pid: int = 1) -> pb.StartResponse:
    message = pb.StartResponse()
    message.event.start.pid = pid
    return message


def output(data: bytes) -> pb.StartResponse:
    message = pb.StartResponse()
    message.event.data.stdout = data
    return message


def failing(code: grpc.StatusCode, words: str) -> Any:
    def behaviour(request: Any, context: grpc.ServicerContext) -> Any:
        context.abort(code, words)

    return behaviour


def headers_of(context: grpc.ServicerContext) -> dict[str, str]:
    return {name: value for name, value in context.invocation_metadata() if isinstance(value, str)}


def hold(context: grpc.ServicerContext) -> None:
    """Wait until the call is over for the server."""
    over = threading.Event()
    if context.add_callback(over.set):
        over.wait(20)


def test_a_unary_call() -> None:
    seen: list[dict[str, str]] = []
    answer = pb.ListResponse(processes=[pb.ProcessInfo(pid=7)])

    def behaviour(request: Any, context: grpc.ServicerContext) -> pb.ListResponse:
        seen.append(headers_of(context))
        return answer

    with serving({"List": behaviour}) as url:
        envd = envd_at(url)
        assert envd.unary(envd.process.List, pb.ListRequest(), user="root", request_timeout=9) == answer
    (headers,) = seen
    assert headers["e2b-sandbox-id"] == "i1"
    assert headers["e2b-sandbox-port"] == "49983"
    assert headers["x-access-token"] == "secret"
    assert headers["authorization"] == "Basic cm9vdDo="
    assert headers["user-agent"].startswith("sandbox-sync/")
    assert 8000 < int(headers["connect-timeout-ms"]) <= 9000


@pytest.mark.parametrize(
    ("code", "words", "expected"),
    [
        (grpc.StatusCode.NOT_FOUND, "no such pid", "NotFoundException"),
        (grpc.StatusCode.INVALID_ARGUMENT, "cwd", "InvalidArgumentException"),
        (grpc.StatusCode.UNAUTHENTICATED, "who?", "AuthenticationException"),
        (grpc.StatusCode.RESOURCE_EXHAUSTED, "slow down", "RateLimitException"),
        (grpc.StatusCode.UNAVAILABLE, "The sandbox was not found", "SandboxNotRunningException"),
        (grpc.StatusCode.UNAVAILABLE, "port is not open", "PortNotOpenException"),
        (grpc.StatusCode.DEADLINE_EXCEEDED, "", "RequestTimeoutException"),
        (grpc.StatusCode.CANCELLED, "", "RequestTimeoutException"),
        (grpc.StatusCode.ALREADY_EXISTS, "there", "SandboxException"),
        (grpc.StatusCode.INTERNAL, "x", "SandboxException"),
        (grpc.StatusCode.DATA_LOSS, "x", "SandboxException"),
    ],
)
@pytest.mark.parametrize("streaming", [False, True])
def test_errors_are_the_same_as_over_connect(
    code: grpc.StatusCode, words: str, expected: str, streaming: bool
) -> None:
    """G60."""
    with serving({"SendSignal": failing(code, words), "Start": failing(code, words)}) as url:
        envd = envd_at(url)

        def call() -> None:
            if streaming:
                list(envd.stream(envd.process.Start, pb.StartRequest(), request_timeout=5))
            else:
                envd.unary(envd.process.SendSignal, pb.SendSignalRequest(), request_timeout=5)

        with pytest.raises(SandboxException) as caught:
            call()
    assert type(caught.value).__name__ == expected
    assert caught.value.sandbox_id == "i1"
    assert caught.value.code == ("canceled" if code is grpc.StatusCode.CANCELLED else code.name.lower())


def test_a_unary_call_ends_at_its_deadline() -> None:
    """G2, G4."""
    with serving({"List": lambda request, context: hold(context)}) as url:
        envd = envd_at(url)
        begin = time.monotonic()
        with pytest.raises(errors.RequestTimeoutException) as caught:
            envd.unary(envd.process.List, pb.ListRequest(), request_timeout=0.5)
        assert 0.5 <= time.monotonic() - begin < 1.0
    assert caught.value.limit == 0.5


def test_where_nobody_listens_nothing_was_sent() -> None:
    envd = envd_at("http://127.0.0.1:1")
    with pytest.raises(errors.SandboxUnreachableException) as caught:
        envd.unary(envd.process.SendInput, pb.SendInputRequest(), request_timeout=5)
    assert not caught.value.maybe_executed


@pytest.mark.parametrize(
    "words",
    [
        "Stream removed (recvmsg:Connection reset by peer (104))",
        "Error in HTTP transport completing operation: send_initial_metadata_finished "
        "write_state=WRITING+MORE (Pending writes failed due to stream closure "
        "(sendmsg: Connection reset by peer (104)))",
    ],
)
def test_all_words_for_a_connection_that_broke_mean_that(words: str) -> None:
    """Which of them gRPC says is a matter of chance, so here a server says them."""
    with serving({"SendInput": failing(grpc.StatusCode.UNAVAILABLE, words)}) as url:
        envd = envd_at(url)
        with pytest.raises(errors.ConnectionException) as caught:
            envd.unary(envd.process.SendInput, pb.SendInputRequest(), request_timeout=5)
    assert type(caught.value) is errors.ConnectionException
    assert caught.value.maybe_executed


def test_a_server_that_accepts_and_never_answers_costs_request_timeout() -> None:
    """G2."""
    with scripted(lambda peer: peer.wait_for_end()) as server:
        envd = envd_at(server.url)
        begin = time.monotonic()
        with pytest.raises(errors.TimeoutException):
            envd.unary(envd.process.List, pb.ListRequest(), request_timeout=0.5)
        with pytest.raises(errors.TimeoutException):
            envd.stream(envd.process.Start, pb.StartRequest(), timeout=0, request_timeout=0.5)
        assert time.monotonic() - begin < 2.0


def test_a_server_that_does_not_speak_grpc_is_an_error_at_once() -> None:
    def respond(peer: Peer, request: Received) -> None:
        peer.answer(204 if request.target == "/health" else 400, connection="close")

    with answering(respond) as server:
        envd = envd_at(server.url)
        begin = time.monotonic()
        with pytest.raises(errors.IncompleteCallException) as caught:
            envd.unary(envd.process.SendInput, pb.SendInputRequest(), request_timeout=30)
        assert time.monotonic() - begin < 10
        assert not caught.value.maybe_executed


def test_a_stream_is_followed_to_its_end() -> None:
    def behaviour(request: pb.StartRequest, context: grpc.ServicerContext) -> Iterator[pb.StartResponse]:
        seen.append(headers_of(context))
        yield started()
        for number in range(1000):
            yield output(b"%d" % number)

    seen: list[dict[str, str]] = []
    with serving({"Start": behaviour}) as url:
        envd = envd_at(url)
        stream = envd.stream(envd.process.Start, pb.StartRequest(), timeout=20)
        messages = list(stream)
    assert [message.event.data.stdout for message in messages[1:]] == [b"%d" % n for n in range(1000)]
    assert seen[0]["connect-timeout-ms"] == "20000", (
        "it bounds the command, which gRPC's own deadline does not"
    )
    assert seen[0]["keepalive-ping-interval"] == "50"


def test_large_messages_pass_both_ways() -> None:
    """G39: 8 MiB of output at once, and a listing of 50,000 files."""
    data = b"x" * (8 * 1024 * 1024)
    listing = fs.ListDirResponse(
        entries=[fs.EntryInfo(name=f"file-{n}", path=f"/d/file-{n}") for n in range(50_000)]
    )
    behaviours = {
        "Start": lambda request, context: iter([output(data)]),
        "ListDir": lambda request, context: listing,
        "SendInput": lambda request, context: pb.SendInputResponse(),
    }
    with serving(behaviours) as url:
        envd = envd_at(url)
        (message,) = envd.stream(envd.process.Start, pb.StartRequest())
        assert message.event.data.stdout == data
        assert len(envd.unary(envd.filesystem.ListDir, fs.ListDirRequest()).entries) == 50_000
        request = pb.SendInputRequest()
        request.input.stdin = data
        envd.unary(envd.process.SendInput, request)


def test_a_message_beyond_our_limit_is_no_matter_of_rates(monkeypatch: pytest.MonkeyPatch) -> None:
    """G39."""
    limits = {**dict(grpc_connections._OPTIONS), "grpc.max_receive_message_length": 1000}
    monkeypatch.setattr(grpc_connections, "_OPTIONS", tuple(limits.items()))
    answer = pb.ListResponse(processes=[pb.ProcessInfo(tag="x" * 2000)])
    with serving({"List": lambda request, context: answer}) as url:
        envd = envd_at(url)
        with pytest.raises(SandboxException, match="larger than max") as caught:
            envd.unary(envd.process.List, pb.ListRequest())
    assert type(caught.value) is SandboxException


def waiting(request: Any, context: grpc.ServicerContext) -> Iterator[pb.StartResponse]:
    yield started()
    hold(context)


def test_a_stream_that_falls_silent_is_broken_whatever_its_timeout() -> None:
    """G1."""
    with serving({"Start": waiting}) as url:
        envd = envd_at(url, keepalive=0.2)
        stream = envd.stream(envd.process.Start, pb.StartRequest(), timeout=0)
        begin = time.monotonic()
        with pytest.raises(errors.SandboxUnreachableException) as caught:
            list(stream)
        assert 0.5 < time.monotonic() - begin < 2.0
    assert caught.value.clock == "silence"


def test_keepalives_keep_a_stream() -> None:
    def behaviour(request: Any, context: grpc.ServicerContext) -> Iterator[pb.StartResponse]:
        yield started()
        for _ in range(10):
            time.sleep(0.1)
            message = pb.StartResponse()
            message.event.keepalive.SetInParent()
            yield message

    with serving({"Start": behaviour}) as url:
        envd = envd_at(url, keepalive=0.2)
        assert len(list(envd.stream(envd.process.Start, pb.StartRequest(), timeout=0))) == 11


@pytest.mark.parametrize(("tell_server", "grace"), [(True, 1.0), (False, 0.0)])
def test_a_stream_ends_at_its_timeout(tell_server: bool, grace: float) -> None:
    """G1, G3."""
    with serving({"Start": waiting}) as url:
        envd = envd_at(url)
        begin = time.monotonic()
        stream = envd.stream(envd.process.Start, pb.StartRequest(), timeout=0.5, tell_server=tell_server)
        with pytest.raises(errors.CommandTimeoutException) as caught:
            list(stream)
        assert 0.5 + grace <= time.monotonic() - begin < 1.0 + grace
    assert (caught.value.clock, caught.value.limit) == ("timeout", 0.5)


def test_a_stream_that_never_begins_costs_request_timeout() -> None:
    """G2."""

    def behaviour(request: Any, context: grpc.ServicerContext) -> Iterator[pb.StartResponse]:
        hold(context)
        return iter([])

    with serving({"Start": behaviour}) as url:
        envd = envd_at(url)
        begin = time.monotonic()
        with pytest.raises(errors.RequestTimeoutException):
            envd.stream(envd.process.Start, pb.StartRequest(), timeout=0, request_timeout=0.5)
        assert 0.5 <= time.monotonic() - begin < 1.0


def test_a_blocked_stream_is_cancelled_from_another_thread_at_once() -> None:
    with serving({"Start": waiting}) as url:
        envd = envd_at(url)
        stream = envd.stream(envd.process.Start, pb.StartRequest())
        next(stream)
        timer = threading.Timer(0.2, stream.cancel)
        timer.start()
        begin = time.monotonic()
        assert list(stream) == []
        assert time.monotonic() - begin < 1.0
        assert stream.cancelled
        timer.join()
        stream.cancel()
        assert grpc_connections.active == set()


def test_a_dropped_stream_ends_on_the_server() -> None:
    """G11."""
    over = threading.Event()

    def behaviour(request: Any, context: grpc.ServicerContext) -> Iterator[pb.StartResponse]:
        context.add_callback(over.set)
        yield started()
        over.wait(20)

    for iterated in (False, True):
        over.clear()
        with serving({"Start": behaviour}) as url:
            envd = envd_at(url)
            stream = envd.stream(envd.process.Start, pb.StartRequest())
            if iterated:
                next(stream)
            del stream
            gc.collect()
            assert over.wait(1)
    assert grpc_connections.active == set()


def test_a_server_that_goes_away_breaks_its_streams() -> None:
    """G12: never taken for an end."""
    with serving({"Start": waiting}) as url:
        envd = envd_at(url)
        stream = envd.stream(envd.process.Start, pb.StartRequest(), timeout=0)
        next(stream)
    with pytest.raises(errors.IncompleteCallException):
        next(stream)


def test_a_client_stream() -> None:
    received: list[bytes] = []

    def behaviour(requests: Iterator[pb.StreamInputRequest], context: Any) -> pb.StreamInputResponse:
        received.extend(request.data.input.stdin for request in requests)
        return pb.StreamInputResponse()

    def messages() -> Iterator[pb.StreamInputRequest]:
        for number in range(5):
            message = pb.StreamInputRequest()
            message.data.input.stdin = b"%d" % number
            yield message

    with serving({"StreamInput": behaviour}) as url:
        envd = envd_at(url)
        assert envd.client_stream(envd.process.StreamInput, messages()) == pb.StreamInputResponse()
    assert received == [b"0", b"1", b"2", b"3", b"4"]


def test_an_error_of_the_callers_iterator_comes_back_as_it_is() -> None:
    def messages() -> Iterator[pb.StreamInputRequest]:
        yield pb.StreamInputRequest()
        raise ValueError("bug")

    with serving({"StreamInput": lambda requests, context: next(requests) and list(requests)}) as url:
        envd = envd_at(url)
        with pytest.raises(ValueError, match="bug"):
            envd.client_stream(envd.process.StreamInput, messages(), request_timeout=5)


def test_sandboxes_share_a_connection_which_ends_with_the_last_of_them() -> None:
    gc.collect()
    before = len(grpc_connections._connections)
    with serving({"List": lambda request, context: pb.ListResponse()}) as url:
        first, second = envd_at(url), envd_at(url)
        for envd in (first, second):
            envd.unary(envd.process.List, pb.ListRequest())
        assert len(grpc_connections._connections) == before + 1
        del first, second, envd
        assert len(grpc_connections._connections) == before


def test_more_streams_than_a_connection_carries_take_further_ones() -> None:
    peers: set[str] = set()

    def start(request: Any, context: grpc.ServicerContext) -> Iterator[pb.StartResponse]:
        peers.add(context.peer())
        yield started()
        hold(context)

    def answer(request: Any, context: grpc.ServicerContext) -> pb.ListResponse:
        return pb.ListResponse()

    with serving({"Start": start, "List": answer}, threads=256, streams=100) as url:
        envd = envd_at(url)
        streams = [envd.stream(envd.process.Start, pb.StartRequest(), request_timeout=20) for _ in range(230)]
        envd.unary(envd.process.List, pb.ListRequest(), request_timeout=20)
        assert len(peers) == 3
        for stream in streams:
            stream.cancel()
        del streams, stream
        again = envd.stream(envd.process.Start, pb.StartRequest(), request_timeout=20)
        assert len(peers) == 3  # there is room again
        again.cancel()


def test_many_threads_use_one_connection() -> None:
    """G16."""

    def behaviour(request: pb.SendInputRequest, context: grpc.ServicerContext) -> pb.SendInputResponse:
        if request.process.tag != headers_of(context)["authorization"]:
            context.abort(grpc.StatusCode.INTERNAL, "mixed up")
        return pb.SendInputResponse()

    import base64

    with serving({"SendInput": behaviour}) as url:
        envd = envd_at(url)
        failures: list[BaseException] = []

        def work(name: int) -> None:
            try:
                for number in range(30):
                    user = f"{name}-{number}"
                    tag = "Basic " + base64.b64encode(f"{user}:".encode()).decode()
                    request = pb.SendInputRequest(process=pb.ProcessSelector(tag=tag))
                    envd.unary(envd.process.SendInput, request, user=user)
            except SandboxException as error:
                failures.append(error)

        threads = [threading.Thread(target=work, args=(name,)) for name in range(16)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(30)
        assert failures == []


@pytest.mark.parametrize("url", ["http://127.0.0.1:1/path", "http://127.0.0.1:1/a/b/"])
def test_a_url_that_grpc_cannot_reach_is_refused(url: str) -> None:
    with pytest.raises(errors.InvalidArgumentException, match="path"):
        _ = envd_at(url).process


def test_a_proxy_that_grpc_cannot_use_is_refused() -> None:
    """G40: at once, and not at the deadline."""
    with pytest.raises(errors.InvalidArgumentException, match="proxies"):
        _ = envd_at("http://sandbox.example.org", proxy="https://proxy.example.org").process
