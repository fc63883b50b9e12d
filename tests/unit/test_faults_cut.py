"""Connections that break, and answers that are none: what every call of the SDK makes of it."""

from __future__ import annotations

import json
import socket
import traceback
from collections.abc import Callable

import pytest

from sandbox_sync import errors
from sandbox_sync.config import DEFAULT_RETRIES
from tests.unit.fault_table import CALLS, TOKEN, Outcome, Playing, run_all, verdict
from tests.unit.wire_server import Peer, Received, answering, chunk, frame, scripted

LIMIT = 10.0


def kind_of(request: Received) -> str:
    content = request.headers.get("content-type", "")
    return {"application/connect+proto": "stream", "application/proto": "rpc"}.get(content, "other")


def whole_answer(request: Received) -> bytes:
    """An answer of status 200 that needs all of its bytes to be one."""
    head = b"HTTP/1.1 200 OK\r\n"
    kind = kind_of(request)
    if kind == "stream":
        body = chunk(frame(b"\x0a\x04\x0a\x02\x08\x07")) + chunk(frame(b"{}", 2)) + b"0\r\n\r\n"
        return head + b"content-type: application/connect+proto\r\ntransfer-encoding: chunked\r\n\r\n" + body
    if kind == "rpc":
        return head + b"content-type: application/proto\r\ncontent-length: 20\r\n\r\n" + b"\0" * 20
    return head + b"content-type: application/json\r\ncontent-length: 20\r\n\r\n" + b" " * 18 + b"[]"


def cut(place: Callable[[bytes], int], end: Callable[[Peer], None] = Peer.close) -> Callable[..., None]:
    """Send so much of a whole answer, and end the connection."""

    def play(peer: Peer, request: Received) -> None:
        answer = whole_answer(request)
        peer.send(answer[: place(answer)])
        end(peer)

    return play


def saying(data: bytes) -> Callable[..., None]:
    def play(peer: Peer, request: Received) -> None:
        peer.send(data)
        peer.close()

    return play


HEAD_END = b"\r\n\r\n"

BREAKS: dict[str, Callable[[Peer, Received], None]] = {
    "closed before the answer": cut(lambda answer: 0),
    "reset before the answer": cut(lambda answer: 0, Peer.reset),
    "closed in the status line": cut(lambda answer: 6),
    "closed in the head": cut(lambda answer: answer.index(HEAD_END) - 3),
    "reset in the head": cut(lambda answer: answer.index(HEAD_END) - 3, Peer.reset),
    "closed after the head": cut(lambda answer: answer.index(HEAD_END) + 4),
    "closed in the body": cut(lambda answer: answer.index(HEAD_END) + 10),
    "reset in the body": cut(lambda answer: answer.index(HEAD_END) + 10, Peer.reset),
    "not HTTP": saying(b"SSH-2.0-OpenSSH_9.6\r\n"),
    "noise": saying(bytes(range(128, 256)) * 4),
    "TLS where none is spoken": saying(b"\x15\x03\x03\x00\x02\x02\x46"),
    "an endless head": saying(b"HTTP/1.1 200 OK\r\n" + b"x-a: b\r\n" * 1000),
}


@pytest.mark.parametrize("name", BREAKS)
def test_a_connection_that_breaks_is_an_error_that_says_what_is_known(name: str) -> None:
    """G12, G28, G45, G47: one class; made again only if that does no harm; the sandbox asked about itself."""
    seen = Playing()

    def script(peer: Peer) -> None:
        while (request := peer.receive()) is not None:
            if not seen.is_aside(peer, request):
                BREAKS[name](peer, request)
                return

    with scripted(script) as server:
        outcomes = run_all(server.url, LIMIT)
        for outcome in outcomes:
            # A file that has begun to arrive is handed on, and not asked for twice.
            once = outcome.call.kind == "get" and ("body" in name or "after the head" in name)
            judge(outcome, seen, again=outcome.call.idempotent and not once)
        assert verdict(outcomes) == []


def judge(outcome: Outcome, seen: Playing, *, again: bool) -> None:
    call = outcome.call
    outcome.fails_as(
        errors.ConnectionException,
        status=None,
        maybe_executed=True,
        sandbox_state="alive" if call.kind not in ("control", "health") else "unknown",
    )
    outcome.expect("number of requests", seen.of(outcome), 1 + DEFAULT_RETRIES if again else 1)
    outcome.takes(0.0, 2.0)


OK = b"HTTP/1.1 200 OK\r\n"
STREAM = OK + b"content-type: application/connect+proto\r\ntransfer-encoding: chunked\r\n\r\n"
LAST = b"0\r\n\r\n"
HTML = b"<html>Log in to the hotel</html>"


def whole(head: bytes, body: bytes) -> bytes:
    return OK + head + b"content-length: %d\r\n\r\n" % len(body) + body


NOT_THE_PROTOCOL: dict[
    str, tuple[frozenset[str], bytes, type[errors.SandboxException], dict[str, object]]
] = {
    "a frame cut short": (
        frozenset({"stream"}),
        STREAM + chunk(frame(b"x" * 100)[:50]) + LAST,
        errors.ConnectionException,
        {"sandbox_state": "alive", "maybe_executed": True},
    ),
    "no last frame": (
        frozenset({"stream"}),
        STREAM + LAST,
        errors.ConnectionException,
        {"sandbox_state": "alive", "maybe_executed": True},
    ),
    "a frame of 4 GiB": (
        frozenset({"stream"}),
        STREAM + chunk(b"\0\xff\xff\xff\xff" + b"x" * 50),
        errors.SandboxException,
        {"code": "internal", "maybe_executed": True},
    ),
    "a frame of no known kind": (
        frozenset({"stream"}),
        STREAM + chunk(frame(b"", 0x80)) + LAST,
        errors.SandboxException,
        {"code": "internal", "maybe_executed": True},
    ),
    "another content type": (
        frozenset({"stream", "rpc", "control", "post", "health"}),
        whole(b"content-type: text/html\r\n", HTML),
        errors.SandboxException,
        {"maybe_executed": True},
    ),
    "a message that is none": (
        frozenset({"rpc"}),
        whole(b"content-type: application/proto\r\n", b"\xff\xff\xff"),
        errors.SandboxException,
        {"code": "internal", "maybe_executed": True},
    ),
    "compressed badly": (
        frozenset({"rpc", "control", "get", "post"}),
        whole(b"content-type: application/proto\r\ncontent-encoding: gzip\r\n", b"not gzip"),
        errors.ConnectionException,
        {"maybe_executed": True},
    ),
}


@pytest.mark.parametrize("name", NOT_THE_PROTOCOL)
def test_an_answer_that_breaks_the_protocol_is_an_error(name: str) -> None:
    """G12, G47, G59: whatever comes with status 200, nothing is made up from it."""
    kinds, answer, expected, fields = NOT_THE_PROTOCOL[name]
    calls = [call for call in CALLS if call.kind in kinds]
    seen = Playing(calls)

    def script(peer: Peer) -> None:
        while (request := peer.receive()) is not None:
            if not seen.is_aside(peer, request):
                peer.send(answer)

    with scripted(script) as server:
        outcomes = run_all(server.url, LIMIT, calls)
        for outcome in outcomes:
            outcome.fails_as(expected, **fields)
            outcome.takes(0.0, 2.0)
        assert verdict(outcomes) == []


@pytest.mark.parametrize("transport", ["connect", "grpc"])
def test_where_nobody_listens_nothing_was_sent(transport: str) -> None:
    """G28: a service that cannot be reached is no sandbox that cannot, and neither is one that is gone."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    outcomes = run_all(f"http://127.0.0.1:{port}", LIMIT, transport=transport)
    for outcome in outcomes:
        unreachable = outcome.call.kind != "control"
        outcome.fails_as(
            errors.SandboxUnreachableException if unreachable else errors.ConnectionException,
            maybe_executed=False,
            status=None,
            sandbox_state="unknown",
        )
        outcome.takes(0.0, 2.0)
    assert verdict(outcomes) == []


def test_an_answer_of_another_shape_is_an_error_that_shows_none_of_it() -> None:
    """What is needed and is not there is an error, and what is there in its place may be secret."""
    # The others need nothing of the body.
    reads = ("create", "connect", "get_info", "list", "get_metrics", "create_snapshot", "fork")
    calls = [
        call for call in CALLS if call.kind == "control" and any(f".{name}" in call.name for name in reads)
    ]
    body = json.dumps(
        {"sandboxID": [TOKEN], "snapshotID": [TOKEN], "envdAccessToken": {"is": TOKEN}}
    ).encode()

    def respond(peer: Peer, request: Received) -> None:
        peer.answer(201 if request.method == "POST" else 200, body)

    with answering(respond) as server:
        outcomes = run_all(server.url, LIMIT, calls)
    assert len(outcomes) == 11
    for outcome in outcomes:
        error = outcome.error
        assert type(error) is errors.SandboxException, outcome
        assert error.status == (201 if outcome.call.method == "POST" else 200)
        assert "cannot be understood" in str(error)
        assert TOKEN not in "".join(traceback.format_exception(type(error), error, error.__traceback__))
        assert error.__cause__ is None
