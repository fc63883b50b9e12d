"""HTTP/1.1 on the wire, byte by byte."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from sandbox_local.http import ByteStream, Headers, HttpError, Limits, Request, Response, Tunnel
from tests.unit.engine_testbed import LOOPS, Running, serving

LIMITS = Limits(header_seconds=0.4, linger_seconds=0.4)


async def handler(request: Request) -> Response:
    """What the tests ask for."""
    match request.path:
        case "/echo":
            body = await request.body.read(1 << 20)
            said = f"{request.method} {request.target} {request.version} ".encode()
            return Response(200, {"x-host": request.host}, said + body)
        case "/pieces":
            return Response(200, {}, pieces(b"one", b"", b"two"))
        case "/known":
            return Response(200, {"content-length": "6"}, pieces(b"one", b"two"))
        case "/short":
            return Response(200, {"content-length": "7"}, pieces(b"one", b"two"))
        case "/long":
            return Response(200, {"content-length": "5"}, pieces(b"one", b"two"))
        case "/trailers":
            trailers = Headers()
            return Response(200, {}, pieces(b"x", trailers=trailers), trailers=trailers)
        case "/empty":
            return Response(204)
        case "/cached":
            return Response(304, {"etag": '"x"'})
        case "/unread":
            return Response(200, {}, b"not read")
        case "/break":
            return Response(200, {}, broken())
        case "/injection":
            return Response(200, {"x-name": "a\r\nset-cookie: b"})
        case "/bug":
            raise ZeroDivisionError("secret detail")
        case "/teapot":
            raise HttpError(418, "short and stout", headers={"x-spout": "yes"})
    raise HttpError(404)


async def pieces(*parts: bytes, trailers: Headers | None = None) -> AsyncIterator[bytes]:
    for part in parts:
        yield part
        await asyncio.sleep(0)
    if trailers is not None:
        trailers.set("grpc-status", "0")


async def broken() -> AsyncIterator[bytes]:
    yield b"beginning"
    await asyncio.sleep(0)
    raise ZeroDivisionError


@pytest.fixture(params=LOOPS)
def server(request: pytest.FixtureRequest) -> Iterator[Running]:
    with serving(handler, limits=LIMITS, loop=request.param) as running:
        yield running


@pytest.fixture(scope="module")
def shared() -> Iterator[Running]:
    """A server for the many cases of one table."""
    with serving(handler, limits=LIMITS) as running:
        yield running


CHUNKED = (
    b"POST /echo?a=b HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n"
    b"3;x=y\r\nabc\r\n2\r\nde\r\n0\r\nT: t\r\n\r\n"
)
SIZED = b"POST /echo?a=b HTTP/1.1\r\nHost: h\r\nContent-Length: 5\r\n\r\nabcde"


@pytest.mark.parametrize("message", [CHUNKED, SIZED], ids=["chunked", "sized"])
def test_request_means_the_same_wherever_the_network_splits_it(shared: Running, message: bytes) -> None:
    with shared.connect() as wire:
        for at in range(1, len(message)):
            wire.send(message[:at])
            answer = wire.ask(message[at:])
            assert (answer.status, answer.body) == (200, b"POST /echo?a=b 1.1 abcde")


def test_request_may_come_byte_by_byte(server: Running) -> None:
    with server.connect() as wire:
        for at in range(len(CHUNKED)):
            wire.send(CHUNKED[at : at + 1])
        assert wire.answer().body == b"POST /echo?a=b 1.1 abcde"


def test_pipelined_requests_are_answered_in_order(server: Running) -> None:
    message = b"".join(
        b"POST /echo HTTP/1.1\r\nHost: h\r\nContent-Length: %d\r\n\r\n%d" % (len(str(n)), n)
        for n in range(60)
    )
    with server.connect() as wire:
        wire.send(message)
        for n in range(60):
            assert wire.answer().body == b"POST /echo 1.1 %d" % n


def test_more_pipelined_requests_than_the_limit_are_refused_after_the_others(server: Running) -> None:
    with server.connect() as wire:
        wire.send(b"GET /unread HTTP/1.1\r\nHost: h\r\n\r\n" * 300)
        statuses = [wire.answer().status for _ in range(LIMITS.pipelined + 2)]
        assert statuses == [200] * (LIMITS.pipelined + 1) + [503]
        assert wire.closed()


def test_body_of_unknown_length_is_chunked_and_the_connection_goes_on(server: Running) -> None:
    with server.connect() as wire:
        for _ in range(2):
            answer = wire.ask(b"GET /pieces HTTP/1.1\r\nHost: h\r\n\r\n")
            assert answer.headers["transfer-encoding"] == "chunked"
            assert answer.body == b"onetwo"


def test_body_of_unknown_length_ends_with_the_connection_in_http_1_0(server: Running) -> None:
    with server.connect() as wire:
        answer = wire.ask(b"GET /pieces HTTP/1.0\r\nConnection: keep-alive\r\n\r\n")
        assert "transfer-encoding" not in answer.headers
        assert (answer.headers["connection"], answer.body) == ("close", b"onetwo")


def test_length_that_the_handler_announces_is_kept(server: Running) -> None:
    with server.connect() as wire:
        answer = wire.ask(b"GET /known HTTP/1.1\r\nHost: h\r\n\r\n")
        assert (answer.headers["content-length"], answer.body) == ("6", b"onetwo")


@pytest.mark.parametrize("path", [b"/short", b"/long", b"/break"])
def test_broken_response_body_cuts_the_connection(server: Running, path: bytes) -> None:
    with server.connect() as wire:
        wire.send(b"GET %b HTTP/1.1\r\nHost: h\r\n\r\n" % path)
        with pytest.raises((EOFError, ConnectionResetError)):
            wire.answer()


def test_trailers_follow_a_chunked_body(server: Running) -> None:
    with server.connect() as wire:
        answer = wire.ask(b"GET /trailers HTTP/1.1\r\nHost: h\r\n\r\n")
        assert (answer.body, answer.trailers) == (b"x", {"grpc-status": "0"})


@pytest.mark.parametrize("path", [b"/unread", b"/pieces", b"/known"])
def test_head_gets_the_head_of_a_get_and_no_body(server: Running, path: bytes) -> None:
    with server.connect() as wire:
        head = wire.ask(b"HEAD %b HTTP/1.1\r\nHost: h\r\n\r\n" % path, head=True)
        get = wire.ask(b"GET %b HTTP/1.1\r\nHost: h\r\n\r\n" % path)
        head.headers.pop("date"), get.headers.pop("date")
        assert head.headers == get.headers


def test_answers_without_a_body_announce_none(server: Running) -> None:
    with server.connect() as wire:
        for path, status in ((b"/empty", 204), (b"/cached", 304)):
            answer = wire.ask(b"GET %b HTTP/1.1\r\nHost: h\r\n\r\n" % path)
            assert answer.status == status
            assert not {"content-length", "transfer-encoding"} & answer.headers.keys()


@pytest.mark.parametrize(
    ("head", "stays"),
    [
        (b"GET /unread HTTP/1.1\r\nHost: h\r\n", True),
        (b"GET /unread HTTP/1.1\r\nHost: h\r\nConnection: close\r\n", False),
        (b"GET /unread HTTP/1.0\r\n", False),
        (b"GET /unread HTTP/1.0\r\nConnection: Keep-Alive\r\n", True),
    ],
)
def test_connection_is_kept_exactly_when_the_client_says_so(
    shared: Running, head: bytes, stays: bool
) -> None:
    with shared.connect() as wire:
        answer = wire.ask(head + b"\r\n")
        if stays:
            assert answer.headers.get("connection") != "close"
            assert wire.ask(head + b"\r\n").status == 200
        else:
            assert answer.headers["connection"] == "close"
            assert wire.closed()


def test_client_that_waits_for_100_continue_gets_it_once_the_body_is_wanted(server: Running) -> None:
    head = b"POST %b HTTP/1.1\r\nHost: h\r\nContent-Length: 2\r\nExpect: 100-continue\r\n\r\n"
    with server.connect() as wire:
        assert wire.ask(head % b"/echo").status == 100
        assert wire.ask(b"ok").body == b"POST /echo 1.1 ok"
        answer = wire.ask(head % b"/unread")
        assert (answer.status, answer.headers["connection"]) == (200, "close")


def test_body_that_nobody_reads_does_not_keep_the_client_from_its_answer(server: Running) -> None:
    with server.connect() as wire:
        wire.send(b"POST /unread HTTP/1.1\r\nHost: h\r\nContent-Length: 20000000\r\n\r\n")
        wire.send(bytes(20_000_000))
        answer = wire.answer()
        assert (answer.body, answer.headers["connection"]) == (b"not read", "close")
        assert wire.closed()


def test_small_body_that_nobody_reads_does_not_cost_the_connection(server: Running) -> None:
    with server.connect() as wire:
        for _ in range(3):
            assert wire.ask(SIZED.replace(b"/echo?a=b", b"/unread")).body == b"not read"


def test_errors_of_handlers_are_json_and_tell_nothing_of_the_inside(server: Running) -> None:
    with server.connect() as wire:
        answer = wire.ask(b"GET /teapot HTTP/1.1\r\nHost: h\r\n\r\n")
        assert (answer.status, answer.headers["x-spout"]) == (418, "yes")
        assert answer.body == b'{"code":418,"message":"short and stout"}'
        answer = wire.ask(b"GET /bug HTTP/1.1\r\nHost: h\r\n\r\n")
        assert (answer.status, answer.body) == (500, b'{"code":500,"message":"internal error"}')


def test_header_value_can_not_break_out_of_its_line(server: Running) -> None:
    with server.connect() as wire:
        wire.send(b"GET /injection HTTP/1.1\r\nHost: h\r\n\r\n")
        assert b"set-cookie" not in wire.rest()


LONG = b"x" * 70_000
MALFORMED = {
    "not http": (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03", 400),
    "no version": (b"GET /\r\n\r\n", 505),
    "bad method": (b"G@T / HTTP/1.1\r\nHost: h\r\n\r\n", 400),
    "bad version": (b"GET / HTTP/1.9\r\nHost: h\r\n\r\n", 400),
    "old version": (b"GET / HTTP/0.9\r\nHost: h\r\n\r\n", 505),
    "http/2 without its preface": (b"GET / HTTP/2.0\r\nHost: h\r\n\r\n", 505),
    "bare line feeds": (b"GET / HTTP/1.1\nHost: h\n\n", 400),
    "bare line feed in a header": (b"GET / HTTP/1.1\r\nHost: h\nX: y\r\n\r\n", 400),
    "bare carriage return in a header": (b"GET / HTTP/1.1\r\nHost: h\rX: y\r\n\r\n", 400),
    "space before the colon": (b"GET / HTTP/1.1\r\nHost : h\r\n\r\n", 400),
    "folded header": (b"GET / HTTP/1.1\r\nHost: h\r\nX: a\r\n b\r\n\r\n", 400),
    "header without a colon": (b"GET / HTTP/1.1\r\nHost: h\r\nX\r\n\r\n", 400),
    "nul in a header": (b"GET / HTTP/1.1\r\nHost: h\r\nX: a\0b\r\n\r\n", 400),
    "target that is no path": (b"GET foo HTTP/1.1\r\nHost: h\r\n\r\n", 400),
    "target that is not utf-8": (b"GET /\xff HTTP/1.1\r\nHost: h\r\n\r\n", 400),
    "no host": (b"GET / HTTP/1.1\r\n\r\n", 400),
    "target of another host": (b"GET http://a/ HTTP/1.1\r\nHost: b\r\n\r\n", 400),
    "target with a user": (b"GET http://b@a/ HTTP/1.1\r\nHost: b\r\n\r\n", 400),
    "two hosts": (b"GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n", 400),
    "length and chunks": (
        b"POST /echo HTTP/1.1\r\nHost: h\r\nContent-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        400,
    ),
    "chunks and length": (
        b"POST /echo HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\nContent-Length: 3\r\n\r\n0\r\n\r\n",
        400,
    ),
    "two lengths": (
        b"POST /echo HTTP/1.1\r\nHost: h\r\nContent-Length: 3\r\nContent-Length: 3\r\n\r\nabc",
        400,
    ),
    "two lengths in one field": (b"POST /echo HTTP/1.1\r\nHost: h\r\nContent-Length: 3, 3\r\n\r\nabc", 400),
    "signed length": (b"POST /echo HTTP/1.1\r\nHost: h\r\nContent-Length: +3\r\n\r\nabc", 400),
    "length in hex": (b"POST /echo HTTP/1.1\r\nHost: h\r\nContent-Length: 0x3\r\n\r\nabc", 400),
    "endless length": (b"POST /echo HTTP/1.1\r\nHost: h\r\nContent-Length: %b\r\n\r\nabc" % (b"9" * 40), 400),
    "chunks in http 1.0": (b"POST /echo HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", 400),
    "unknown coding": (b"POST /echo HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: gzip\r\n\r\n0\r\n\r\n", 501),
    "stacked coding": (
        b"POST /echo HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n",
        501,
    ),
    "disguised coding": (
        b"POST /echo HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: xchunked\r\n\r\n0\r\n\r\n",
        501,
    ),
    "bad chunk size": (b"POST /echo HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\nz\r\n", 400),
    "negative chunk size": (
        b"POST /echo HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n-1\r\n",
        400,
    ),
    "chunk longer than it says": (
        b"POST /echo HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n1\r\nab\r\n0\r\n\r\n",
        400,
    ),
    "chunk with bare line feed": (
        b"POST /echo HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n1\na\r\n0\r\n\r\n",
        400,
    ),
    "unknown expectation": (
        b"POST /echo HTTP/1.1\r\nHost: h\r\nContent-Length: 1\r\nExpect: tea\r\n\r\n",
        417,
    ),
    "connect with a body": (b"CONNECT h:1 HTTP/1.1\r\nHost: h\r\nContent-Length: 1\r\n\r\na", 400),
    "long target": (b"GET /%b HTTP/1.1\r\nHost: h\r\n\r\n" % LONG, 414),
    "long header": (b"GET / HTTP/1.1\r\nHost: h\r\nX: %b\r\n\r\n" % LONG, 431),
    "long header name": (b"GET / HTTP/1.1\r\nHost: h\r\n%b: y\r\n\r\n" % LONG, 431),
    "header that never ends": (b"GET / HTTP/1.1\r\nHost: h\r\nX: %b" % (LONG * 6), 431),
    "many headers": (b"GET / HTTP/1.1\r\nHost: h\r\n%b\r\n" % (b"X: y\r\n" * 100), 431),
    "many bytes of headers": (
        b"GET / HTTP/1.1\r\nHost: h\r\n%b\r\n" % (b"X: %b\r\n" % LONG[:7000] * 10),
        431,
    ),
    "empty lines that never end": (b"\r\n" * 200_000, 431),
    "trailer that never ends": (
        b"POST /echo HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n0\r\nX: %b" % (LONG * 6),
        431,
    ),
    "chunk extension that never ends": (
        b"POST /echo HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n1;%b" % (LONG * 6),
        431,
    ),
}


@pytest.mark.parametrize(("message", "status"), MALFORMED.values(), ids=MALFORMED)
def test_malformed_request_is_answered_with_json_and_the_connection_closed(
    shared: Running, message: bytes, status: int
) -> None:
    with shared.connect() as wire:
        answer = wire.ask(message)
        assert (answer.status, answer.headers.get("connection")) == (status, "close")
        assert answer.body.startswith(b'{"code":%d,"message":"' % status)
        assert wire.closed()
    with shared.connect() as wire:
        assert wire.ask(SIZED).status == 200


def test_malformed_request_behind_a_good_one_harms_only_itself(server: Running) -> None:
    with server.connect() as wire:
        wire.send(SIZED + b"nonsense\r\n\r\n" + SIZED)
        assert wire.answer().status == 200
        assert wire.answer().status == 400
        assert wire.closed()


def test_request_head_that_drips_is_cut_off_with_408(server: Running) -> None:
    with server.connect() as wire:
        assert wire.ask(SIZED).status == 200
        wire.send(b"GET / HTTP/1.1\r\nHo")
        assert wire.answer().status == 408
        assert wire.closed()


def test_idle_connection_is_closed_in_time() -> None:
    with serving(handler, limits=Limits(header_seconds=0.4, idle_seconds=0.3)) as server:
        with server.connect() as wire:
            assert wire.closed()
        with server.connect() as wire:
            assert wire.ask(SIZED).status == 200
            assert wire.closed()
        with server.connect() as wire:
            wire.send(b"P")
            assert wire.closed()


@pytest.mark.parametrize("upgrade", ["h2c", "websocket"])
@pytest.mark.parametrize("message", [CHUNKED, SIZED, b"GET /echo?a=b HTTP/1.1\r\nHost: h\r\n\r\n"])
def test_upgrade_that_the_handler_does_not_want_is_plain_http(
    shared: Running, message: bytes, upgrade: str
) -> None:
    message = message.replace(
        b"Host: h\r\n", b"Host: h\r\nConnection: Upgrade\r\nUpgrade: %b\r\n" % upgrade.encode()
    )
    with shared.connect() as wire:
        for at in (len(message), 30, len(message) - 3):
            wire.send(message[:at])
            answer = wire.ask(message[at:] + SIZED.replace(b"abcde", b"fghij"))
            assert answer.body in (b"POST /echo?a=b 1.1 abcde", b"GET /echo?a=b 1.1 ")
            assert wire.answer().body == b"POST /echo?a=b 1.1 fghij"


async def tunnelling(request: Request) -> Response:
    async def shout(stream: ByteStream) -> None:
        async for data in stream.incoming:
            await stream.write(data.upper())
        await stream.write(b"BYE")
        await stream.end()

    async def hang(stream: ByteStream) -> None:
        await stream.write(b"hi")
        return

    if request.path == "/plain":
        await asyncio.sleep(0.05)
        return Response(200, {}, b"plain")
    if request.method == "CONNECT":
        return Response(200, {}, Tunnel(shout))
    if request.path == "/hang":
        return Response(101, {"connection": "Upgrade", "upgrade": "x"}, Tunnel(hang))
    return Response(101, {"connection": "Upgrade", "upgrade": "x"}, Tunnel(shout))


@pytest.mark.parametrize("loop", LOOPS)
@pytest.mark.parametrize(
    ("message", "status"),
    [
        (b"CONNECT box:80 HTTP/1.1\r\nHost: box:80\r\n\r\n", 200),
        (b"GET /ws HTTP/1.1\r\nHost: h\r\nConnection: Upgrade\r\nUpgrade: x\r\n\r\n", 101),
    ],
)
def test_tunnel_carries_bytes_both_ways_and_each_side_ends_on_its_own(
    loop: str, message: bytes, status: int
) -> None:
    with serving(tunnelling, loop=loop) as server, server.connect() as wire:
        wire.send(message + b"early ")
        head = wire.until(b"\r\n\r\n")
        assert head.startswith(b"HTTP/1.1 %d " % status)
        assert (b"upgrade: x" in head) == (status == 101)
        assert b"content-length" not in head
        assert wire.exactly(6) == b"EARLY "
        for n in range(20):
            wire.send(b"word%d" % n)
            assert wire.exactly(len(f"word{n}")) == b"WORD%d" % n
        wire.sock.shutdown(1)
        assert wire.rest() == b"BYE"


def test_tunnel_may_follow_other_requests_in_a_pipeline() -> None:
    with serving(tunnelling) as server, server.connect() as wire:
        wire.send(b"GET /plain HTTP/1.1\r\nHost: h\r\n\r\n")
        wire.send(b"GET /ws HTTP/1.1\r\nHost: h\r\nConnection: Upgrade\r\nUpgrade: x\r\n\r\nearly")
        assert wire.answer().body == b"plain"
        assert wire.answer().status == 101
        assert wire.exactly(5) == b"EARLY"


def test_tunnel_that_returns_closes_the_connection() -> None:
    with serving(tunnelling) as server, server.connect() as wire:
        wire.send(b"GET /hang HTTP/1.1\r\nHost: h\r\nConnection: Upgrade\r\nUpgrade: x\r\n\r\n")
        wire.until(b"\r\n\r\n")
        assert wire.rest() == b"hi"


def test_tunnel_is_refused_to_a_request_that_did_not_ask_for_one() -> None:
    with serving(tunnelling) as server, server.connect() as wire:
        assert wire.ask(b"GET /ws HTTP/1.1\r\nHost: h\r\n\r\n").status == 500


@pytest.fixture(scope="module")
def fuzzed() -> Iterator[Running]:
    with serving(handler, limits=LIMITS) as running:
        yield running


def mutated(data: st.DataObject, message: bytes) -> bytes:
    """A message with a few pieces replaced by others."""
    pieces = st.sampled_from(
        [b"", b"\r\n", b"\n", b":", b" ", b"\0", b"0", b"chunked", b"Content-Length: 9\r\n"]
    )
    for _ in range(data.draw(st.integers(0, 4))):
        start = data.draw(st.integers(0, len(message)))
        end = min(len(message), start + data.draw(st.integers(0, 5)))
        message = message[:start] + data.draw(pieces | st.binary(max_size=5)) + message[end:]
    return message


@given(
    st.data(),
    st.sampled_from([CHUNKED, SIZED, CHUNKED + SIZED, b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + bytes(99)]),
)
@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_no_bytes_whatever_shake_the_server(fuzzed: Running, data: st.DataObject, message: bytes) -> None:
    with fuzzed.connect() as wire:
        wire.send_until_refused(mutated(data, message), 1)
        wire.shut()
        wire.closed()
    with fuzzed.connect() as wire:
        assert wire.ask(SIZED).body == b"POST /echo?a=b 1.1 abcde"
