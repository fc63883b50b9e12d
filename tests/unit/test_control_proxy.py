"""HTTP through the reverse proxy to a port of a box."""

from __future__ import annotations

import asyncio
import socket
from typing import cast

import httpx
import pytest

from sandbox_local import proxy
from sandbox_local.http import Request
from sandbox_local.isolation.base import Box
from sandbox_local.tunnel import PortClosed, dial
from tests.unit.proxy_testbed import Dialer, Through, answering, body_of, with_proxy


def test_an_answer_passes_with_its_length_and_fields() -> None:
    async def test(through: Through) -> None:
        answer = await through.get()
        assert answer.startswith(b"HTTP/1.1 201 ")
        assert b"content-length: 5\r\n" in answer
        assert answer.lower().count(b"set-cookie: ") == 2
        assert b"x-private" not in answer.lower(), "named by Connection"
        assert body_of(answer) == b"hello"

    with_proxy(
        answering(
            b"HTTP/1.1 201 Made\r\nContent-Length: 5\r\nSet-Cookie: a=1\r\nSet-Cookie: b=2\r\n"
            b"Connection: close, X-Private\r\nX-Private: 1\r\n\r\nhello"
        ),
        test,
    )


def test_a_request_passes_with_its_host_and_without_what_is_for_the_proxy() -> None:
    seen: list[bytes] = []

    async def test(through: Through) -> None:
        await through.ask(
            b"GET /a%20b?c=d%2F HTTP/1.1\r\nHost: 8000-i1.localhost\r\nX-Mine: 1\r\n"
            b"E2b-Traffic-Access-Token: t\r\nTE: trailers\r\nConnection: close, X-Hop\r\nX-Hop: 1\r\n\r\n"
        )
        head = seen[0].lower()
        assert head.startswith(b"get /a%20b?c=d%2f http/1.1\r\n")
        assert b"host: 8000-i1.localhost\r\n" in head
        assert b"x-mine: 1\r\n" in head
        assert b"connection: close\r\n" in head
        for private in (b"x-hop", b"te: ", b"traffic", b"content-length", b"transfer-encoding"):
            assert private not in head

    with_proxy(answering(b"HTTP/1.1 204 None\r\n\r\n", seen), test)


@pytest.mark.parametrize("announced", [True, False])
def test_a_request_body_is_passed_on_as_it_comes(announced: bool) -> None:
    """The answer comes in the middle of the request, as an echo can."""

    async def echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = (await reader.readuntil(b"\r\n\r\n")).lower()
        assert (b"content-length: 10" in head) == announced
        assert (b"transfer-encoding: chunked" in head) == (not announced)
        writer.write(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
        for _ in range(2):
            size = 5 if announced else int(await reader.readline(), 16)
            writer.write(b"5\r\n" + await reader.readexactly(size) + b"\r\n")
            if not announced:
                await reader.readline()
        writer.write(b"0\r\n\r\n")
        writer.close()

    async def test(through: Through) -> None:
        reader, writer = await through.open()
        framing = b"Content-Length: 10" if announced else b"Transfer-Encoding: chunked"
        writer.write(b"POST / HTTP/1.1\r\nHost: x\r\n%b\r\n\r\n" % framing)
        for part in (b"first", b"other"):
            writer.write(part if announced else b"5\r\n%b\r\n" % part)
            await reader.readuntil(part)
        if not announced:
            writer.write(b"0\r\n\r\n")
        assert (await reader.readuntil(b"0\r\n\r\n")).endswith(b"0\r\n\r\n")
        writer.close()

    with_proxy(echo, test)


def test_pieces_of_an_answer_arrive_when_they_are_sent() -> None:
    go_on: list[asyncio.Event] = []

    async def peer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n\r\ndata: 1\n\n")
        go_on.append(asyncio.Event())
        await go_on[0].wait()
        writer.write(b"data: 2\n\n")
        writer.close()

    async def test(through: Through) -> None:
        reader, writer = await through.open()
        writer.write(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
        await reader.readuntil(b"data: 1\n\n")
        go_on[0].set()
        await reader.readuntil(b"data: 2\n\n")
        await reader.readuntil(b"0\r\n\r\n")
        writer.close()

    with_proxy(peer, test)


def test_interim_answers_are_left_out() -> None:
    async def test(through: Through) -> None:
        answer = await through.get()
        assert answer.startswith(b"HTTP/1.1 200 ")
        assert b"early" not in answer
        assert body_of(answer) == b"ok"

    with_proxy(
        answering(
            b"HTTP/1.1 103 Early Hints\r\nX-Early: 1\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"
        ),
        test,
    )


def test_head_gets_the_length_and_no_body() -> None:
    async def test(through: Through) -> None:
        answer = await through.get(method=b"HEAD")
        assert b"content-length: 7\r\n" in answer
        assert body_of(answer) == b""

    with_proxy(answering(b"HTTP/1.1 200 OK\r\nContent-Length: 7\r\n\r\n"), test)


@pytest.mark.parametrize(
    "answer",
    [
        b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhalf",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nhalf\r\n",
    ],
)
def test_a_body_that_is_cut_inside_is_cut_outside(answer: bytes) -> None:
    async def test(through: Through) -> None:
        received = await through.get()
        head, _, body = received.partition(b"\r\n\r\n")
        assert b"200" in head
        assert not body.endswith(b"0\r\n\r\n")
        assert b"content-length: 4\r\n" not in head

    with_proxy(answering(answer), test)


@pytest.mark.parametrize(
    "answer",
    [
        b"",
        b"SSH-2.0-OpenSSH_9\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Le",
        b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nX: " + b"x" * 100_000 + b"\r\n\r\n",
        b"HTTP/1.1 101 Now what\r\nUpgrade: x\r\nConnection: upgrade\r\n\r\n",
    ],
)
def test_what_does_not_speak_http_is_a_502_that_says_so(answer: bytes) -> None:
    async def test(through: Through) -> None:
        received = await through.get()
        assert received.startswith(b"HTTP/1.1 502 ")
        assert b"no answer in HTTP" in received
        assert b"was not found" not in received
        assert b"port is not open" not in received

    with_proxy(answering(answer), test)


def test_a_closed_port_is_tried_for_a_moment_and_then_told() -> None:
    """G28: gone and port closed are told apart."""

    async def run() -> None:
        with socket.socket() as unused:
            unused.bind(("127.0.0.1", 0))
            port = unused.getsockname()[1]
            with pytest.raises(PortClosed, match="The sandbox is running but port is not open"):
                await proxy.forward(cast(Request, None), cast(Box, Dialer()), port)

    asyncio.run(run())


def test_a_server_that_listens_a_moment_later_is_reached() -> None:
    async def run() -> None:
        with socket.socket() as listener:
            listener.bind(("127.0.0.1", 0))
            dialing = asyncio.create_task(dial(cast(Box, Dialer()), listener.getsockname()[1]))
            await asyncio.sleep(0.15)
            assert not dialing.done()
            listener.listen()
            _, writer = await asyncio.wait_for(dialing, 5)
            writer.close()

    asyncio.run(run())


def test_who_hangs_up_lets_go_of_the_box() -> None:
    hung_up: list[bytes] = []

    async def peer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        hung_up.append(b"waiting")
        try:
            hung_up.append(await reader.read())
        except ConnectionError:
            hung_up.append(b"")
        writer.close()

    async def test(through: Through) -> None:
        _, writer = await through.open()
        writer.write(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
        while not hung_up:
            await asyncio.sleep(0.01)
        writer.transport.abort()
        while hung_up != [b"waiting", b""]:
            await asyncio.sleep(0.01)

    with_proxy(peer, test)


def test_a_websocket_goes_through_both_ways() -> None:
    async def peer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = (await reader.readuntil(b"\r\n\r\n")).lower()
        assert b"connection: upgrade\r\n" in head
        assert b"upgrade: websocket\r\n" in head
        assert b"sec-websocket-key: k\r\n" in head
        writer.write(
            b"HTTP/1.1 101 Switching\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
            b"Sec-WebSocket-Accept: a\r\n\r\nfirst"
        )
        while data := await reader.read(100):
            writer.write(data.upper())
        writer.write(b"bye")
        writer.close()

    async def test(through: Through) -> None:
        reader, writer = await through.open()
        writer.write(
            b"GET /ws HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
            b"Sec-WebSocket-Key: k\r\n\r\n"
        )
        head = (await reader.readuntil(b"\r\n\r\n")).lower()
        assert head.startswith(b"http/1.1 101 ")
        assert b"upgrade: websocket\r\n" in head
        assert b"sec-websocket-accept: a\r\n" in head
        assert await reader.readexactly(5) == b"first"
        for word in (b"one", b"two" * 30):
            writer.write(word)
            assert await reader.readexactly(len(word)) == word.upper()
        writer.write_eof()
        assert await reader.read() == b"bye"
        writer.close()

    with_proxy(peer, test)


def test_a_large_answer_waits_for_a_slow_reader() -> None:
    sent = 0

    async def peer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal sent
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % (64 << 20))
        for _ in range(64):
            writer.write(b"x" * (1 << 20))
            await writer.drain()
            sent += 1
        writer.close()

    async def test(through: Through) -> None:
        reader, writer = await through.open()
        writer.write(b"GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
        await reader.readuntil(b"\r\n\r\n")
        before = -1
        while before != sent:
            before = sent
            await asyncio.sleep(0.2)
        assert sent < 48, "the peer is held back while nobody reads"
        size = 0
        while data := await reader.read(1 << 20):
            size += len(data)
        assert size == 64 << 20
        writer.close()

    with_proxy(peer, test)


def test_a_request_over_http2_without_a_body_has_none_inside() -> None:
    seen: list[bytes] = []

    async def test(through: Through) -> None:
        def get() -> httpx.Response:
            with httpx.Client(http1=False, http2=True, trust_env=False) as client:
                return client.get(f"http://127.0.0.1:{through.port}/x")

        answer = await asyncio.to_thread(get)
        assert (answer.status_code, answer.http_version, answer.text) == (200, "HTTP/2", "ok")
        assert b"transfer-encoding" not in seen[0].lower()

    with_proxy(answering(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok", seen), test)


@pytest.mark.parametrize(
    "answer",
    [
        b"HTTP/1.1 099 Odd\r\n\r\n",
        b"HTTP/1.1 999 Odd\r\nContent-Length: 0\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nX-Odd: \x7f\xff\x01\r\nContent-Length: 0\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nX-Odd: a\r\n b\r\nContent-Length: 0\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nX Odd: a\r\nContent-Length: 0\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: -1\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip\r\n\r\nx",
        b"HTTP/1.1 204 None\r\nContent-Length: 5\r\n\r\nhello",
        b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok and more",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
        b"HTTP/1.1 304 Same\r\nTransfer-Encoding: chunked\r\n\r\n",
        b"HTTP/1.1 100 Continue\r\n\r\n" * 3,
        b"HTTP/0.9 200 OK\r\n\r\n",
        b"\0" * 1000,
    ],
)
def test_odd_answers_do_not_disturb_the_server(answer: bytes, caplog: pytest.LogCaptureFixture) -> None:
    async def test(through: Through) -> None:
        for method in (b"GET", b"HEAD"):
            received = await asyncio.wait_for(through.get(method=method), 5)
            assert received.startswith(b"HTTP/1.1 ")
            assert received.count(b"HTTP/1.1 ") == 1

    with_proxy(answering(answer), test)
    assert [record for record in caplog.records if record.exc_info] == []
