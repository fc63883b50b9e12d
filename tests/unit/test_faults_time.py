"""Servers that are slow in every way there is, and every call of the SDK: each ends when its time is up."""

from __future__ import annotations

import select
import time
from collections.abc import Callable

import pytest

from sandbox_sync import errors
from tests.unit import grpc_wire
from tests.unit.fault_table import CALLS, RPCS, Call, Outcome, at_the_limit, run_all, verdict
from tests.unit.grpc_wire import GrpcPeer
from tests.unit.wire_server import WAIT, Peer, Received, scripted

HEADS = {
    "stream": b"content-type: application/connect+proto\r\ntransfer-encoding: chunked\r\n",
    "rpc": b"content-type: application/proto\r\ncontent-length: 5000\r\n",
    "other": b"content-type: application/json\r\ncontent-length: 5000\r\n",
}


def head_for(request: Received) -> bytes:
    """The head of a good answer to this request, of which the body is to follow."""
    kind = request.headers.get("content-type", "")
    name = {"application/connect+proto": "stream", "application/proto": "rpc"}.get(kind, "other")
    return b"HTTP/1.1 200 OK\r\n" + HEADS[name] + b"\r\n"


def drip(peer: Peer, data: bytes, pause: float, before: bytes = b"") -> None:
    peer.send(before)
    for byte in data:
        peer.send(bytes([byte]))
        time.sleep(pause)


def reading(play: Callable[[Peer, Received], None]) -> Callable[[Peer], None]:
    def script(peer: Peer) -> None:
        request = peer.receive()
        if request is not None:
            play(peer, request)

    return script


def never_reads(peer: Peer) -> None:
    hung_up = select.poll()
    hung_up.register(peer.sock, select.POLLRDHUP)
    hung_up.poll(WAIT * 1000)


def only_the_head(peer: Peer, request: Received) -> None:
    peer.send(head_for(request))
    peer.wait_for_end()


def continues(peer: Peer, request: Received) -> None:
    while True:
        peer.send(b"HTTP/1.1 100 Continue\r\n\r\n")
        time.sleep(0.05)


def body_of(request: Received) -> bytes:
    # In a stream: the size of a chunk, and a frame that is not complete for a long time.
    return b"1000\r\n\0\0\0\x08\0" + b"x" * 100 if b"chunked" in head_for(request) else b" " * 100


SLOW = {
    "accepts and reads nothing": never_reads,
    "reads and never answers": Peer.wait_for_end,
    "stops after the head": reading(only_the_head),
    "drips the head, a byte in 0.2 s": reading(lambda peer, request: drip(peer, head_for(request), 0.2)),
    "drips the body, a byte a second": reading(
        lambda peer, request: drip(peer, body_of(request), 1.0, head_for(request))
    ),
    "drips the body, a byte in 0.2 s": reading(
        lambda peer, request: drip(peer, body_of(request), 0.2, head_for(request))
    ),
    "tells to continue for ever": reading(continues),
}
# request_timeout bounds the beginning of a file that is read in blocks; what bounds its blocks is a stall
# (G29), which test_sdk_files tests.
BEYOND_THE_HEAD = {
    "stops after the head",
    "drips the body, a byte a second",
    "drips the body, a byte in 0.2 s",
}


def limits(name: str, call: Call) -> float:
    """Seconds to give a call: half a second, or long enough to see that slow bytes add none.

    A start that failed is followed by a look for what may have been started, for which it waits a tenth.
    """
    if "second" in name:
        return 1.2
    return 1.0 if call.starts else 0.5


def judge(name: str, outcomes: list[Outcome]) -> list[str]:
    for outcome in outcomes:
        limit = limits(name, outcome.call)
        clock = outcome.call.clock
        kind = errors.CommandTimeoutException if clock == "timeout" else errors.RequestTimeoutException
        outcome.fails_as(
            kind,
            clock=clock,
            limit=limit,
            status=None,
            maybe_executed=True,
            sandbox_state="unknown",
        )
        outcome.takes(*at_the_limit(limit))
        if f"`{clock}` ({limit:g} s)" not in str(outcome.error):
            outcome.problems.append(f"{outcome.call.name}: names no knob: {outcome.error}")
    return verdict(outcomes)


@pytest.mark.parametrize("name", SLOW)
def test_every_call_ends_when_its_time_is_up(name: str) -> None:
    """G2, G4, G5: a server that is slow costs request_timeout in every call, and the error says so."""
    calls = [call for call in CALLS if not (name in BEYOND_THE_HEAD and "stream" in call.name)]
    with scripted(SLOW[name]) as server:
        assert judge(name, run_all(server.url, lambda call: limits(name, call), calls)) == []


def grpc_drip(peer: GrpcPeer, stream: int, data: bytes, pause: float) -> None:
    for byte in data:
        peer.data(stream, bytes([byte]))
        time.sleep(pause)


def grpc_head_then(rest: Callable[[GrpcPeer, int], object]) -> Callable[[GrpcPeer], None]:
    def handler(peer: GrpcPeer, stream: int, request: Received) -> None:
        peer.head(stream)
        rest(peer, stream)
        peer.peer.wait_for_end()

    return grpc_wire.answering(handler)


def drip_greeting(peer: GrpcPeer, pause: float) -> None:
    peer.h2.initiate_connection()
    drip(peer.peer, peer.h2.data_to_send(), pause)


def pings_for_ever(peer: GrpcPeer, stream: int, request: Received) -> None:
    while True:
        peer.h2.ping(b"pingping")
        peer.flush()
        time.sleep(0.05)


UNFINISHED = grpc_wire.message(b"x" * 100, size=2048)

GRPC_SLOW: dict[str, Callable[[GrpcPeer], object]] = {
    "accepts and reads nothing": lambda peer: never_reads(peer.peer),
    "never greets": lambda peer: peer.peer.wait_for_end(),
    "drips its greeting, a byte in 0.2 s": lambda peer: drip_greeting(peer, 0.2),
    "reads and never answers": grpc_wire.answering(lambda peer, *call: peer.peer.wait_for_end()),
    "stops after the head": grpc_head_then(lambda peer, stream: None),
    "drips a message, a byte a second": grpc_head_then(
        lambda peer, stream: grpc_drip(peer, stream, UNFINISHED, 1.0)
    ),
    "drips a message, a byte in 0.2 s": grpc_head_then(
        lambda peer, stream: grpc_drip(peer, stream, UNFINISHED, 0.2)
    ),
    "pings for ever": grpc_wire.answering(pings_for_ever),
}


@pytest.mark.parametrize("name", GRPC_SLOW)
def test_every_call_over_grpc_ends_when_its_time_is_up(name: str) -> None:
    """G2, G4, G5: the same over gRPC, whose own clock starts anew for nothing either."""
    with grpc_wire.serving(GRPC_SLOW[name]) as server:
        outcomes = run_all(server.url, lambda call: limits(name, call), RPCS, transport="grpc")
        assert judge(name, outcomes) == []
