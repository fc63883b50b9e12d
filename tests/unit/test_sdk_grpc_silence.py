"""Streams over gRPC on which nothing happens for long, and how stock servers take that.

They end connections that are pinged more often than they like: on a stream without data, two pings within
five minutes are enough ("too_many_pings").
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Iterator
from typing import Any

import grpc
import pytest
from h2.events import PingReceived
from sandbox_sync_rpc import process_pb2 as pb

from sandbox_sync.config import ConnectionConfig
from sandbox_sync.transport.envd import EnvdConnection
from tests.unit import grpc_wire
from tests.unit.grpc_server import serving
from tests.unit.grpc_wire import GrpcPeer, message

# Real ones are silent for minutes: TEST_SILENT_SECONDS=720 is twelve of them.
SILENCE = float(os.environ.get("TEST_SILENT_SECONDS", "3"))


def stream_of(url: str) -> Iterator[pb.StartResponse]:
    config = ConnectionConfig.resolve(api_key="k", sandbox_url=url, transport="grpc")
    envd = EnvdConnection(config, "i1", keepalive_interval=10 * SILENCE)  # no silence is too long for us
    return iter(envd.stream(envd.process.Start, pb.StartRequest(), timeout=0))


def started() -> pb.StartResponse:
    answer = pb.StartResponse()
    answer.event.start.pid = 1
    return answer


def ended() -> pb.StartResponse:
    answer = pb.StartResponse()
    answer.event.end.exited = True
    return answer


@pytest.mark.timeout(120 + SILENCE)
def test_a_stock_server_keeps_a_stream_that_is_silent() -> None:
    """G38: scaled to seconds; the docstring of this file says how to make it minutes."""
    over = threading.Event()

    def silent(request: Any, context: grpc.ServicerContext) -> Iterator[pb.StartResponse]:
        yield started()
        over.wait(SILENCE)
        yield ended()

    with serving({"Start": silent}) as url:
        stream = stream_of(url)
        assert next(stream).event.start.pid == 1
        begin = time.monotonic()
        assert next(stream).event.end.exited
        assert time.monotonic() - begin > SILENCE - 0.5
        assert list(stream) == []


@pytest.mark.timeout(120 + SILENCE)
def test_a_silent_stream_is_not_pinged() -> None:
    """G38: what stock servers punish is not done at all."""
    pings: list[float] = []

    def script(peer: GrpcPeer) -> None:
        peer.greet()
        call = peer.receive()
        assert call is not None
        stream, _ = call
        peer.head(stream)
        peer.data(stream, message(started().SerializeToString()))
        begin = time.monotonic()
        while (left := begin + SILENCE - time.monotonic()) > 0:
            peer.peer.sock.settimeout(left)
            try:
                events = peer.h2.receive_data(peer.peer.sock.recv(65536))
            except TimeoutError:
                break
            pings.extend(time.monotonic() - begin for event in events if isinstance(event, PingReceived))
            peer.flush()
        peer.peer.sock.settimeout(None)
        peer.data(stream, message(ended().SerializeToString()))
        peer.trailers(stream)

    with grpc_wire.serving(script) as server:
        stream = stream_of(server.url)
        assert [answer.event.WhichOneof("event") for answer in stream] == ["start", "end"]
    # The first data may be answered with one ping that measures the line, which servers expect.
    assert [at for at in pings if at > 1] == []
    assert len(pings) <= 1
