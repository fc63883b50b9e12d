"""Calls over gRPC that are made in the main thread, and so by another one, against a real server."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from itertools import islice
from typing import Any

import grpc
import pytest
from sandbox_sync_rpc import process_pb2 as pb

from sandbox_sync import errors
from sandbox_sync.config import ConnectionConfig
from sandbox_sync.transport import grpc_aside, grpc_connections
from sandbox_sync.transport.envd import EnvdConnection
from sandbox_sync.transport.streams import RpcStream
from tests.unit import grpc_wire
from tests.unit.grpc_server import serving
from tests.unit.grpc_wire import GrpcPeer, message
from tests.unit.wire_server import Received

MANY = 10 * grpc_aside._AHEAD + 3


def envd_at(url: str) -> EnvdConnection:
    config = ConnectionConfig.resolve(api_key="k", sandbox_url=url, transport="grpc", retries=0)
    return EnvdConnection(config, "i1", access_token="secret")


def follow(envd: EnvdConnection) -> RpcStream[pb.StartResponse]:
    return envd.stream(envd.process.Start, pb.StartRequest(), timeout=0)


def numbered(request: Any, context: grpc.ServicerContext) -> Iterator[pb.StartResponse]:
    for number in range(MANY):
        answer = pb.StartResponse()
        answer.event.start.pid = number
        yield answer


def numbered_and_failing(request: Any, context: grpc.ServicerContext) -> Iterator[pb.StartResponse]:
    yield from numbered(request, context)
    context.abort(grpc.StatusCode.INTERNAL, "no more")


def pids(answers: Iterator[pb.StartResponse]) -> list[int]:
    return [answer.event.start.pid for answer in answers]


@pytest.fixture(autouse=True)
def in_main_thread() -> None:
    assert grpc_aside.is_interruptible(), "these tests are about the main thread"


def test_an_error_comes_after_all_that_came_before_it() -> None:
    seen: list[int] = []
    with serving({"Start": numbered_and_failing}) as url:
        stream = follow(envd_at(url))
        with pytest.raises(errors.SandboxException, match="no more"):
            seen.extend(pid for answer in stream for pid in [answer.event.start.pid])
    assert seen == list(range(MANY))
    assert grpc_connections.active == set()


@pytest.mark.parametrize("taken", [1, 2, grpc_aside._AHEAD, MANY - 1])
def test_another_thread_can_go_on_with_a_stream(taken: int) -> None:
    with serving({"Start": numbered}) as url:
        stream = follow(envd_at(url))
        seen = pids(islice(stream, taken))
        thread = threading.Thread(target=lambda: seen.extend(pids(iter(stream))))
        thread.start()
        thread.join(30)
    assert seen == list(range(MANY))
    assert grpc_connections.active == set()


def test_no_more_is_fetched_ahead_than_some() -> None:
    with serving({"Start": numbered}) as url:
        stream = follow(envd_at(url))
        assert pids(islice(stream, 2)) == [0, 1]
        ahead: grpc_aside.Ahead = stream._answers._line.ahead  # type: ignore[attr-defined]
        end = time.monotonic() + 20
        while ahead._items.qsize() < grpc_aside._AHEAD - 1 and time.monotonic() < end:
            time.sleep(0.01)
        time.sleep(0.1)  # for what must not come
        assert ahead._items.qsize() == grpc_aside._AHEAD - 1
        assert pids(iter(stream)) == list(range(2, MANY))


def test_a_stream_that_is_left_is_over_when_cancel_returns() -> None:
    with serving({"Start": numbered}) as url:
        stream = follow(envd_at(url))
        assert len(pids(islice(stream, 5))) == 5
        stream.cancel()
        assert grpc_connections.active == set()


def test_two_answers_are_none() -> None:
    def twice(peer: GrpcPeer, stream: int, request: Received) -> None:
        peer.head(stream)
        peer.data(stream, message(b"") * 2)
        peer.trailers(stream)

    with grpc_wire.serving(grpc_wire.answering(twice)) as server:
        envd = envd_at(server.url)
        with pytest.raises(errors.SandboxException, match="missing or cut short"):
            envd.unary(envd.process.SendInput, pb.SendInputRequest(), request_timeout=20)
    assert grpc_connections.active == set()
