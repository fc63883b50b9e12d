"""HTTP/2 on the wire: what it shares with HTTP/1.1 is in test_http_server."""

from __future__ import annotations

import asyncio
import struct
from collections.abc import AsyncIterator, Iterator

import pytest
from h2.errors import ErrorCodes
from hyperframe.frame import ContinuationFrame, DataFrame, Frame, HeadersFrame, PingFrame, SettingsFrame
from hypothesis import given, settings
from hypothesis import strategies as st

from sandbox_local.http import Headers, HttpError, Limits, Request, Response, Tunnel
from tests.unit.engine_testbed import LOOPS, Running, serving
from tests.unit.http2_client import Http2

LIMITS = Limits(h2_streams=4, h2_resets=20, header_seconds=0.4)
PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"


async def handler(request: Request) -> Response:
    """What the tests ask for."""
    match request.path:
        case "/echo":
            said = f"{request.method} {request.target} {request.version} {request.host} ".encode()
            return Response(200, {"x-y": "z", "connection": "close"}, said + await request.body.read(1 << 20))
        case "/big":
            return Response(200, {}, bytes(3_000_000))
        case "/trailers":
            trailers = Headers()
            return Response(200, {}, ending(trailers), trailers=trailers)
        case "/trailers-only":
            return Response(200, {}, b"", trailers=Headers({"grpc-status": "5"}))
        case "/empty":
            return Response(204)
        case "/break":
            return Response(200, {}, broken())
        case "/injection":
            return Response(200, {"x-name": "a\r\nset-cookie: b"})
        case "/unread":
            return Response(200, {}, b"not read")
        case "/wait":
            await asyncio.Event().wait()
        case "/tunnel":
            return Response(200, {}, Tunnel(lambda stream: stream.end()))
        case "/bug":
            raise ZeroDivisionError
    raise HttpError(404)


async def ending(trailers: Headers) -> AsyncIterator[bytes]:
    yield b"x"
    trailers.set("grpc-status", "0")


async def broken() -> AsyncIterator[bytes]:
    yield b"beginning"
    await asyncio.sleep(0)
    raise ZeroDivisionError


@pytest.fixture(params=LOOPS)
def server(request: pytest.FixtureRequest) -> Iterator[Running]:
    with serving(handler, limits=LIMITS, loop=request.param) as running:
        yield running


@pytest.fixture
def client(server: Running) -> Iterator[Http2]:
    with Http2(server.port) as http2:
        yield http2


def test_request_and_response_cross_whole(client: Http2) -> None:
    answer = client.ask("POST", "/echo?a=b", body=b"abc")
    assert (answer.status, answer.body) == (200, b"POST /echo?a=b 2 h abc")
    assert answer.headers["x-y"] == "z"
    assert answer.headers["content-length"] == str(len(answer.body))
    assert "connection" not in answer.headers
    assert "date" in answer.headers


def test_streams_are_answered_side_by_side(client: Http2) -> None:
    waiting = client.send("GET", "/wait")
    for _ in range(20):
        assert client.ask("GET", "/echo").status == 200
    client.reset(waiting)


def test_body_larger_than_every_window_arrives_whole(client: Http2) -> None:
    assert client.ask("GET", "/big").body == bytes(3_000_000)


def test_small_window_is_respected_and_its_updates_are_heard(server: Running) -> None:
    with Http2(server.port, window=65535) as client:
        stream = client.send("GET", "/big")
        for received in range(65535, 3_000_000, 65535):
            assert client.wait_for_body(stream, received)
            client.connection.increment_flow_control_window(65535)
            client.connection.increment_flow_control_window(65535, stream)
            client.flush()
        assert client.answer(stream).body == bytes(3_000_000)


def test_trailers_end_the_stream(client: Http2) -> None:
    answer = client.ask("GET", "/trailers")
    assert (answer.body, answer.trailers) == (b"x", {"grpc-status": "0"})
    answer = client.ask("GET", "/trailers-only")
    assert (answer.body, answer.trailers) == (b"", {"grpc-status": "5"})


def test_answers_without_a_body(client: Http2) -> None:
    assert client.ask("GET", "/empty").status == 204
    head = client.ask("HEAD", "/big")
    assert (head.headers["content-length"], head.body) == ("3000000", b"")


def test_errors_of_handlers_are_json(client: Http2) -> None:
    assert client.ask("GET", "/none").body == b'{"code":404,"message":"Not Found"}'
    assert client.ask("GET", "/bug").body == b'{"code":500,"message":"internal error"}'


@pytest.mark.parametrize("path", ["/break", "/injection"])
def test_broken_response_resets_its_stream_and_no_other(client: Http2, path: str) -> None:
    assert client.ask("GET", path).was_reset
    assert client.ask("GET", "/echo").status == 200


def test_tunnel_is_refused(client: Http2) -> None:
    assert client.ask("GET", "/tunnel").status == 501


def test_body_that_nobody_reads_is_stopped_without_an_error(client: Http2) -> None:
    for _ in range(40):  # each would hold a megabyte of the connection's window if it were not given back
        stream = client.send("POST", "/unread", end=False)
        client.upload_now(stream, bytes(1 << 20))
        assert client.answer(stream).body == b"not read"
    assert client.ask("GET", "/echo").status == 200


@pytest.mark.parametrize(
    ("path", "headers", "status"),
    [
        ("/" + "x" * 20_000, {}, 414),
        ("/echo", {f"x-{n}": "y" for n in range(101)}, 431),
        ("/\xff".encode("latin-1").decode("latin-1"), {}, 404),
        ("foo", {}, 400),
        ("/a b", {}, 400),
        ("/%ff", {}, 400),
    ],
)
def test_request_that_goes_too_far_is_refused(
    client: Http2, path: str, headers: dict[str, str], status: int
) -> None:
    assert client.ask("GET", path, headers=headers).status == status
    assert client.ask("GET", "/echo").status == 200


def test_method_that_would_take_a_request_line_apart_is_refused(client: Http2) -> None:
    assert client.ask("GET /other", "/echo").status == 400
    assert client.ask("GET", "/echo").status == 200


def test_many_bytes_of_headers_end_the_connection(client: Http2) -> None:
    client.ask("GET", "/echo", headers={f"x-{n}": "y" * 8000 for n in range(10)})
    assert client.closed


def test_client_that_resets_streams_faster_than_is_sane_is_cut_off(client: Http2) -> None:
    for _ in range(LIMITS.h2_resets + 1):
        client.reset(client.send("GET", "/wait"))
    assert client.wait_until_closed()
    assert client.goaway == ErrorCodes.ENHANCE_YOUR_CALM


def test_idle_connection_is_told_to_go_and_closed() -> None:
    limits = Limits(header_seconds=0.4, idle_seconds=0.3)
    with serving(handler, limits=limits) as server, Http2(server.port) as client:
        assert client.ask("GET", "/echo").status == 200
        assert client.wait_until_closed()
        assert client.goaway == ErrorCodes.NO_ERROR


def frame(kind: type[Frame], stream: int, **values: object) -> bytes:
    made = kind(stream)
    for name, value in values.items():
        setattr(made, name, value)
    return made.serialize()


SETTINGS = frame(SettingsFrame, 0)
MALFORMED = {
    "wrong preface": b"PRI * HTTP/2.0\r\n\r\nXX\r\n\r\n",
    "http/1.1 behind the preface": PREFACE + b"GET / HTTP/1.1\r\nHost: h\r\n\r\n",
    "no settings first": PREFACE + frame(PingFrame, 0, opaque_data=b"12345678"),
    "data on a stream that is not open": PREFACE + SETTINGS + frame(DataFrame, 1, data=b"x"),
    "even stream": PREFACE + SETTINGS + frame(HeadersFrame, 2, data=b"\x82\x86\x84", flags=["END_HEADERS"]),
    "headers that are no hpack": PREFACE
    + SETTINGS
    + frame(HeadersFrame, 1, data=b"\xff" * 20, flags=["END_HEADERS"]),
    "no pseudo headers": PREFACE + SETTINGS + frame(HeadersFrame, 1, data=b"\x90", flags=["END_HEADERS"]),
    "continuation of nothing": PREFACE + SETTINGS + frame(ContinuationFrame, 1, data=b"\x82"),
    "continuations that never end": PREFACE
    + SETTINGS
    + frame(HeadersFrame, 1, data=b"\x82")
    + frame(ContinuationFrame, 1, data=b"\x82") * 200,
    "frame longer than allowed": PREFACE + SETTINGS + b"\x08\0\0" + bytes(6) + bytes(1 << 19),
    "padding longer than the frame": PREFACE + SETTINGS + b"\0\0\1\0\x08\0\0\0\1\xff",
}


@pytest.mark.parametrize("message", MALFORMED.values(), ids=MALFORMED)
def test_malformed_connection_is_closed(message: bytes) -> None:
    with serving(handler, limits=LIMITS) as server, server.connect() as wire:
        wire.send(message)
        try:
            wire.rest()
        except ConnectionResetError:
            pass


def test_control_frames_that_ask_for_answers_nobody_reads_end_the_connection() -> None:
    ping = frame(PingFrame, 0, opaque_data=b"12345678") * 10_000
    with serving(handler) as server, server.connect(receive_buffer=4096) as wire:
        wire.send(PREFACE + SETTINGS)
        assert wire.send_until_refused(ping, 1000) < 1000


FRAMES = st.lists(
    st.tuples(st.integers(0, 10), st.integers(0, 255), st.sampled_from([0, 1, 3, 5]), st.binary(max_size=30)),
    max_size=10,
)


@pytest.fixture(scope="module")
def fuzzed() -> Iterator[Running]:
    with serving(handler, limits=LIMITS) as running:
        yield running


@given(FRAMES)
@settings(max_examples=200, deadline=None)
def test_no_frames_whatever_shake_the_server(
    fuzzed: Running, frames: list[tuple[int, int, int, bytes]]
) -> None:
    message = (
        PREFACE + SETTINGS + frame(HeadersFrame, 1, data=b"\x82\x86\x84\x41\x01h", flags=["END_HEADERS"])
    )
    for kind, flags, stream, payload in frames:
        message += struct.pack(">I", len(payload))[1:] + struct.pack(">BBI", kind, flags, stream) + payload
    with fuzzed.connect() as wire:
        wire.send_until_refused(message, 1)
        wire.shut()
        wire.closed()
    with Http2(fuzzed.port) as client:
        assert client.ask("GET", "/echo").status == 200
