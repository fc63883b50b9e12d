"""gRPC with the clients of grpcio, and what they do not show byte by byte."""

from __future__ import annotations

import gzip
import threading
import time
from collections.abc import Iterator

import grpc
import pytest
from sandbox_sync_rpc import filesystem_pb2, process_pb2
from sandbox_sync_rpc.channel import Channel
from sandbox_sync_rpc.filesystem_stub import FilesystemStub
from sandbox_sync_rpc.process_stub import ProcessStub

from sandbox_local.rpc import Code
from sandbox_local.rpc.envelope import Unpacker, pack
from tests.unit.engine_testbed import LOOPS, Running, serving
from tests.unit.http2_client import Http2, Http2Answer
from tests.unit.rpc_testbed import Site, data, start_request
from tests.unit.test_rpc_connect import LIST, SEND, START, post


@pytest.fixture
def site() -> Site:
    return Site()


@pytest.fixture(params=LOOPS)
def server(request: pytest.FixtureRequest, site: Site) -> Iterator[Running]:
    with serving(site, loop=request.param) as running:
        yield running


@pytest.fixture(params=[None, grpc.Compression.Gzip], ids=["plain", "gzip"])
def channel(request: pytest.FixtureRequest, server: Running) -> Iterator[grpc.Channel]:
    options = [("grpc.use_local_subchannel_pool", 1)]
    target = f"127.0.0.1:{server.port}"
    with grpc.insecure_channel(target, options, compression=request.param) as channel:
        yield channel


def for_stubs(channel: grpc.Channel) -> Channel:
    return channel  # type: ignore[return-value]  # grpc-stubs know no defaults for the serializers


@pytest.fixture
def process(channel: grpc.Channel) -> ProcessStub:
    return ProcessStub(for_stubs(channel))


def selector(tag: str) -> process_pb2.SendInputRequest:
    return process_pb2.SendInputRequest(process=process_pb2.ProcessSelector(tag=tag))


def inputs(*pieces: bytes) -> Iterator[process_pb2.StreamInputRequest]:
    for piece in pieces:
        yield process_pb2.StreamInputRequest(
            data=process_pb2.StreamInputRequest.DataEvent(input=process_pb2.ProcessInput(stdin=piece))
        )


def test_unary_call_is_answered(process: ProcessStub, site: Site) -> None:
    metadata = [("authorization", "Basic dXNlcjo="), ("connect-timeout-ms", "5000")]
    answer = process.List(process_pb2.ListRequest(), timeout=5, metadata=metadata)
    assert answer.processes[0].pid == 7
    context = site.contexts.get(timeout=5)
    assert (context.sandbox, context.user, context.timeout_ms) == ("the sandbox", "user", 5000)


@pytest.mark.parametrize("code", Code)
def test_error_arrives_with_its_code_and_message(process: ProcessStub, code: Code) -> None:
    with pytest.raises(grpc.RpcError) as caught:
        process.SendInput(selector(code.name), timeout=5)
    name = "CANCELLED" if code is Code.CANCELED else code.name
    assert caught.value.code() is grpc.StatusCode[name]
    assert caught.value.details() == "100 % näh\n"


def test_server_stream_arrives_whole(process: ProcessStub) -> None:
    assert list(process.Start(start_request("count", 3, 5), timeout=5)) == [data(b"xxxxx")] * 3
    assert list(process.Start(start_request("count", 0, 5), timeout=5)) == []
    big = list(process.Start(start_request("count", 300, 32768), timeout=30))
    assert sum(len(event.event.data.stdout) for event in big) == 300 * 32768


def test_error_after_events_arrives_after_them(process: ProcessStub) -> None:
    stream = process.Start(start_request("fail", 2, "NOT_FOUND"), timeout=5)
    assert [next(stream), next(stream)] == [data(b"x")] * 2
    with pytest.raises(grpc.RpcError) as caught:
        next(stream)
    assert caught.value.code() is grpc.StatusCode.NOT_FOUND


def test_bug_of_a_handler_is_an_internal_error_without_details(process: ProcessStub) -> None:
    with pytest.raises(grpc.RpcError) as caught:
        process.SendInput(selector("bug"), timeout=5)
    assert (caught.value.code(), caught.value.details()) == (grpc.StatusCode.INTERNAL, "internal error")


def test_client_stream_is_read_to_its_end(process: ProcessStub, site: Site) -> None:
    process.StreamInput(inputs(b"a", b"", b"bc"), timeout=5)
    assert site.events.get(timeout=5) == "abc"
    process.StreamInput(inputs(*[b"x" * 100_000] * 50), timeout=30)
    assert site.events.get(timeout=5) == "x" * 5_000_000


def test_event_arrives_while_the_stream_goes_on_and_cancelling_closes_it(
    process: ProcessStub, site: Site
) -> None:
    stream = process.Start(start_request("wait"))
    assert next(stream) == data(b"first")
    assert site.events.empty()
    stream.cancel()
    assert site.events.get(timeout=5) == "closed"


def test_deadline_of_the_client_ends_the_call_on_both_sides(process: ProcessStub, site: Site) -> None:
    with pytest.raises(grpc.RpcError) as caught:
        process.SendInput(selector("sleep"), timeout=0.2)
    assert caught.value.code() is grpc.StatusCode.DEADLINE_EXCEEDED
    assert site.events.get(timeout=5) == "cancelled"


def test_many_streams_share_a_connection(process: ProcessStub) -> None:
    waiting = [process.Start(start_request("wait")) for _ in range(50)]
    assert [next(stream) for stream in waiting] == [data(b"first")] * 50
    assert process.List(process_pb2.ListRequest(), timeout=5).processes
    for stream in waiting:
        stream.cancel()


def test_closing_server_lets_a_call_finish_and_the_client_knows(server: Running, site: Site) -> None:
    with grpc.insecure_channel(f"127.0.0.1:{server.port}") as channel:
        process = ProcessStub(for_stubs(channel))
        stream = process.Start(start_request("wait"), timeout=5)
        assert next(stream) == data(b"first")
        began = time.monotonic()
        server.call(server.server.close(grace=0.3))
        with pytest.raises(grpc.RpcError) as caught:
            next(stream)
        assert caught.value.code() is grpc.StatusCode.UNAVAILABLE
        assert time.monotonic() - began < 5
        assert site.events.get(timeout=5) == "closed"


def test_threads_may_call_at_the_same_time(process: ProcessStub) -> None:
    failures: list[object] = []

    def work() -> None:
        for _ in range(20):
            if list(process.Start(start_request("count", 5, 10), timeout=20)) != [data(b"x" * 10)] * 5:
                failures.append("wrong events")

    threads = [threading.Thread(target=work) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert not failures


def test_method_without_a_handler_in_the_service_is_unimplemented(channel: grpc.Channel) -> None:
    with pytest.raises(grpc.RpcError) as caught:
        channel.unary_unary("/process.Process/None", None, None)(b"", timeout=5)
    assert caught.value.code() is grpc.StatusCode.UNIMPLEMENTED
    with pytest.raises(grpc.RpcError) as caught:
        FilesystemStub(for_stubs(channel)).Stat(filesystem_pb2.StatRequest(path="/"), timeout=5)
    assert caught.value.details() == "not part of this test"


# What grpcio does not send.

MESSAGE = start_request("count", 1, 1).SerializeToString()


def ask(
    server: Running, path: str, body: bytes, content_type: str = "application/grpc", **headers: str
) -> Http2Answer:
    fields = {name.replace("_", "-"): value for name, value in headers.items()}
    with Http2(server.port) as http2:
        return http2.ask(
            "POST", path, headers={"content-type": content_type, "te": "trailers", **fields}, body=body
        )


MALFORMED = {
    "no message": (b"", {}, Code.UNIMPLEMENTED),
    "two messages": (pack(0, MESSAGE) * 2, {}, Code.UNIMPLEMENTED),
    "cut message": (pack(0, MESSAGE)[:-1], {}, Code.INVALID_ARGUMENT),
    "no protobuf": (pack(0, b"\xff"), {}, Code.INVALID_ARGUMENT),
    "unknown flag": (pack(2, b""), {}, Code.INVALID_ARGUMENT),
    "compressed unannounced": (pack(1, gzip.compress(MESSAGE)), {}, Code.INVALID_ARGUMENT),
    "no gzip": (pack(1, MESSAGE), {"grpc_encoding": "gzip"}, Code.INVALID_ARGUMENT),
    "unknown encoding": (pack(0, MESSAGE), {"grpc_encoding": "zstd"}, Code.UNIMPLEMENTED),
    "timeout without a unit": (pack(0, MESSAGE), {"grpc_timeout": "1"}, Code.INVALID_ARGUMENT),
    "long timeout": (pack(0, MESSAGE), {"grpc_timeout": "123456789S"}, Code.INVALID_ARGUMENT),
    "expired": (pack(0, MESSAGE), {"grpc_timeout": "0n"}, Code.DEADLINE_EXCEEDED),
    "bad connect timeout": (pack(0, MESSAGE), {"connect_timeout_ms": "x"}, Code.INVALID_ARGUMENT),
}


@pytest.mark.parametrize(("body", "headers", "code"), MALFORMED.values(), ids=MALFORMED)
def test_malformed_call_is_refused_in_the_trailers(
    server: Running, body: bytes, headers: dict[str, str], code: Code
) -> None:
    answer = ask(server, START, body, **headers)
    assert (answer.status, answer.body) == (200, b"")
    assert answer.trailers["grpc-status"] == str(code.number)


@pytest.mark.parametrize("timeout", ["1H", "1M", "10S", "10000m", "10000000u", "99999999n"])
def test_timeout_is_read_in_every_unit(server: Running, timeout: str) -> None:
    answer = ask(server, START, pack(0, MESSAGE), grpc_timeout=timeout)
    assert answer.trailers == {"grpc-status": "0"}


def test_deadline_of_the_client_is_kept_by_the_server(server: Running, site: Site) -> None:
    body = pack(0, start_request("wait").SerializeToString())
    answer = ask(server, START, body, grpc_timeout="100m")
    assert answer.trailers["grpc-status"] == str(Code.DEADLINE_EXCEEDED.number)
    assert site.events.get(timeout=5) == "closed"


def test_unknown_method_is_told_in_the_head_alone(server: Running) -> None:
    answer = ask(server, "/process.Process/None", pack(0, b""))
    assert (answer.headers["grpc-status"], answer.trailers) == ("12", {})


def test_json_messages_are_spoken_too(server: Running) -> None:
    answer = ask(server, LIST, pack(0, b"{}"), "application/grpc+json")
    assert answer.headers["content-type"] == "application/grpc+json"
    assert answer.body == pack(0, b'{"processes":[{"pid":7,"tag":"t"}]}')


def test_grpc_over_http_1_1_has_its_status_in_the_trailers(server: Running) -> None:
    with server.connect() as wire:
        answer = wire.ask(post(START, "application/grpc+proto", pack(0, MESSAGE)))
        assert (answer.status, answer.headers["content-type"]) == (200, "application/grpc+proto")
        assert answer.body == pack(0, data(b"x").SerializeToString())
        assert answer.trailers == {"grpc-status": "0"}


def test_grpc_web_has_its_trailers_in_the_body(server: Running) -> None:
    with server.connect() as wire:
        answer = wire.ask(post(START, "application/grpc-web+proto", pack(0, MESSAGE)))
        assert list(Unpacker().feed(answer.body)) == [
            (0, data(b"x").SerializeToString()),
            (0x80, b"grpc-status: 0\r\n"),
        ]
        body = pack(0, selector("NOT_FOUND").SerializeToString())
        answer = wire.ask(post(SEND, "application/grpc-web", body))
        assert list(Unpacker().feed(answer.body)) == [
            (0x80, b"grpc-status: 5\r\ngrpc-message: 100 %25 n%C3%A4h%0A\r\n")
        ]
        assert answer.trailers == {}
