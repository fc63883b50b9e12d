"""Connections of gRPC that break, and answers that are none: what every call over it makes of it."""

from __future__ import annotations

from collections.abc import Callable

import grpc
import pytest
from h2.errors import ErrorCodes

from sandbox_sync import errors
from tests.unit import grpc_wire
from tests.unit.fault_table import RPCS, run_all, verdict
from tests.unit.grpc_wire import GrpcPeer, message
from tests.unit.wire_server import Received

LIMIT = 10.0

Script = Callable[[GrpcPeer], object]


def after_request(play: Callable[[GrpcPeer, int], object]) -> Script:
    """Do this for the request of the call itself; answer what is asked for beside it."""

    def handler(peer: GrpcPeer, stream: int, request: Received) -> None:
        play(peer, stream)

    return grpc_wire.answering(handler)


def closing(*steps: Callable[[GrpcPeer, int], object]) -> Script:
    def play(peer: GrpcPeer, stream: int) -> None:
        for step in steps:
            step(peer, stream)
        raise EOFError

    return after_request(play)


def resetting(*steps: Callable[[GrpcPeer, int], object]) -> Script:
    def play(peer: GrpcPeer, stream: int) -> None:
        for step in steps:
            step(peer, stream)
        peer.peer.reset()
        raise EOFError

    return after_request(play)


def head(peer: GrpcPeer, stream: int) -> None:
    peer.head(stream)


def half_a_message(peer: GrpcPeer, stream: int) -> None:
    peer.data(stream, message(b"x" * 10, size=100))


def reset_stream(code: ErrorCodes) -> Script:
    def play(peer: GrpcPeer, stream: int) -> None:
        peer.h2.reset_stream(stream, code)
        peer.flush()

    return after_request(play)


def go_away(peer: GrpcPeer, stream: int) -> None:
    peer.h2.close_connection(ErrorCodes.ENHANCE_YOUR_CALM, b"too_many_pings", last_stream_id=0)
    peer.flush()
    raise EOFError


def reset_at_once(peer: GrpcPeer) -> None:
    peer.peer.reset()


def noise(peer: GrpcPeer) -> None:
    peer.peer.send(bytes(range(256)) * 4)


NOT_SENT = {
    "closed before it greets": lambda peer: None,
    "reset before it greets": reset_at_once,
    "noise": noise,
}
SENT: dict[str, Script] = {
    "closed after the request": closing(),
    "reset after the request": resetting(),
    "closed after the head": closing(head),
    "reset after the head": resetting(head),
    "closed in a message": closing(head, half_a_message),
    "reset in a message": resetting(head, half_a_message),
    "goes away": after_request(go_away),
    "stream reset": reset_stream(ErrorCodes.INTERNAL_ERROR),
    "stream cancelled": reset_stream(ErrorCodes.CANCEL),
}


@pytest.mark.parametrize("name", [*NOT_SENT, *SENT])
def test_a_connection_that_breaks_is_an_error_that_says_what_is_known(name: str) -> None:
    """G12, G28, G45, G60: as over Connect."""
    script = NOT_SENT.get(name) or SENT[name]
    with grpc_wire.serving(script) as server:
        outcomes = run_all(server.url, LIMIT, RPCS, transport="grpc")
        for outcome in outcomes:
            outcome.fails_as(
                errors.ConnectionException,
                status=None,
                maybe_executed=name in SENT,
                sandbox_state="alive",
            )
            outcome.takes(0.0, 2.0)
        assert verdict(outcomes) == []


def refusing(status: int, content: bytes = b"", **headers: str) -> Script:
    def play(peer: GrpcPeer, stream: int) -> None:
        peer.head(stream, status=status, end=not content, content_type="text/html", **headers)
        if content:
            peer.data(stream, content, end=True)

    return after_request(play)


def answering(*data: bytes) -> Script:
    """Answer this, and that all is well."""

    def play(peer: GrpcPeer, stream: int) -> None:
        peer.head(stream)
        for part in data:
            peer.data(stream, part)
        peer.trailers(stream)

    return after_request(play)


HTML = b"<html>Bad Gateway</html>"
ALIVE: dict[str, object] = {"sandbox_state": "alive"}

# Earlier ones look at the length when the message is there, and so see one that was cut short.
_REFUSES_BY_LENGTH = tuple(map(int, grpc.__version__.split(".")[:2])) >= (1, 84)

NOT_THE_PROTOCOL: dict[str, tuple[Script, type[errors.SandboxException], dict[str, object]]] = {
    "no message": (answering(), errors.ConnectionException, {**ALIVE, "maybe_executed": True}),
    "a message cut short": (
        answering(message(b"x" * 10, size=100)),
        errors.ConnectionException,
        {**ALIVE, "maybe_executed": True},
    ),
    "a message of 4 GiB": (
        answering(message(b"x", size=0xFFFFFFFF)),
        *(
            (errors.SandboxException, {"code": "internal", "maybe_executed": True})
            if _REFUSES_BY_LENGTH
            else (errors.ConnectionException, {**ALIVE, "maybe_executed": True})
        ),
    ),
    "a message that is none": (
        answering(message(b"\xff\xff\xff")),
        errors.SandboxException,
        {"code": "internal", "maybe_executed": True},
    ),
    "compressed without saying how": (
        answering(message(b"x", flags=1)),
        errors.SandboxException,
        {"code": "internal", "maybe_executed": True},
    ),
    "a page, and no status": (refusing(200, HTML), errors.ConnectionException, ALIVE),
    "a page of a proxy": (
        refusing(502),
        errors.SandboxUnreachableException,
        {**ALIVE, "status": 502, "code": "unavailable"},
    ),
    "a page of another server": (
        refusing(404),
        errors.SandboxException,
        {"status": 404, "code": "not_found", "maybe_executed": False},
    ),
    "a redirect": (refusing(307, location="http://127.0.0.1:1/"), errors.SandboxException, {"status": 307}),
}


@pytest.mark.parametrize("name", NOT_THE_PROTOCOL)
def test_an_answer_that_breaks_the_protocol_is_an_error(name: str) -> None:
    """G12, G47, G59, G60: a good status alone is no success, and a page that is not there is no evidence."""
    script, expected, fields = NOT_THE_PROTOCOL[name]
    with grpc_wire.serving(script) as server:
        outcomes = run_all(server.url, LIMIT, RPCS, transport="grpc")
        for outcome in outcomes:
            outcome.fails_as(expected, **fields)
            outcome.takes(0.0, 2.0)
        assert verdict(outcomes) == []


def test_what_a_server_says_of_its_own_connections_is_not_about_ours() -> None:
    """The words of gRPC, from a program that failed to do what it was asked to."""
    for words in ("write |1: Broken pipe", "cannot reach the host: failed to connect to all addresses"):

        def play(peer: GrpcPeer, stream: int, words: str = words) -> None:
            peer.refuse(stream, 9, words)

        with grpc_wire.serving(after_request(play)) as server:
            outcomes = run_all(server.url, LIMIT, RPCS, transport="grpc")
            for outcome in outcomes:
                outcome.fails_as(errors.SandboxException, code="failed_precondition", maybe_executed=False)
            assert verdict(outcomes) == []
