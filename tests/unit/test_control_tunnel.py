"""Tunnels to a port of a box, and what HTTP says before there is a body."""

from __future__ import annotations

import asyncio

from tests.unit.proxy_testbed import Through, answering, with_proxy


async def shouting(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """A peer of no protocol: it says hello, then everything louder, and goodbye after the end."""
    writer.write(b"hello ")
    while data := await reader.read(100):
        writer.write(data.upper())
    writer.write(b" bye")
    writer.close()


def test_connect_makes_a_raw_tunnel_that_can_be_closed_on_one_side() -> None:
    async def test(through: Through) -> None:
        reader, writer = await through.open()
        writer.write(b"CONNECT 22-i1.localhost:80 HTTP/1.1\r\nHost: 22-i1.localhost:80\r\n\r\nat once")
        head = await reader.readuntil(b"\r\n\r\n")
        assert head.startswith(b"HTTP/1.1 200 ")
        assert b"content-length" not in head.lower()
        assert b"transfer-encoding" not in head.lower()
        assert await reader.readexactly(13) == b"hello AT ONCE"
        writer.write_eof()
        assert await reader.read() == b" bye"
        writer.close()

    with_proxy(shouting, test)


def test_a_tunnel_whose_inner_side_has_closed_still_takes_bytes() -> None:
    got: list[bytes] = []
    done = asyncio.Event()

    async def peer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"that is all")
        writer.write_eof()
        got.append(await reader.read())
        writer.close()
        done.set()

    async def test(through: Through) -> None:
        reader, writer = await through.open()
        writer.write(b"CONNECT 22-i1.localhost:80 HTTP/1.1\r\nHost: x\r\n\r\n")
        await reader.readuntil(b"\r\n\r\n")
        assert await reader.read() == b"that is all"
        writer.write(b"but not for me" * 10_000)
        writer.write_eof()
        await asyncio.wait_for(done.wait(), 10)
        assert got == [b"but not for me" * 10_000]
        writer.close()

    with_proxy(peer, test)


def test_a_body_is_asked_for_when_the_server_inside_wants_it() -> None:
    asked = asyncio.Event()

    async def peer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = await reader.readuntil(b"\r\n\r\n")
        if b"refuse" in head:
            writer.write(b"HTTP/1.1 413 No\r\nContent-Length: 0\r\n\r\n")
        else:
            await asked.wait()
            writer.write(b"HTTP/1.1 100 Continue\r\n\r\n")
            body = await reader.readexactly(4)
            writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\n" + body.upper())
        writer.close()

    async def test(through: Through) -> None:
        head = b"PUT /%b HTTP/1.1\r\nHost: x\r\nContent-Length: 4\r\nExpect: 100-continue\r\n\r\n"
        answer = await through.ask(head % b"refuse")
        assert answer.startswith(b"HTTP/1.1 413 "), "without 100 before it"
        reader, writer = await through.open()
        writer.write(head % b"take")
        waiting = asyncio.ensure_future(reader.readuntil(b"\r\n\r\n"))
        await asyncio.sleep(0.1)
        assert not waiting.done()
        asked.set()
        assert (await waiting).startswith(b"HTTP/1.1 100 ")
        writer.write(b"body")
        assert (await reader.readuntil(b"BODY")).startswith(b"HTTP/1.1 200 ")
        writer.close()

    with_proxy(peer, test)


def test_a_server_inside_that_knows_no_100_gets_the_body_all_the_same() -> None:
    async def peer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\n" + await reader.readexactly(4))
        writer.close()

    async def test(through: Through) -> None:
        reader, writer = await through.open()
        writer.write(b"PUT / HTTP/1.1\r\nHost: x\r\nContent-Length: 4\r\nExpect: 100-continue\r\n\r\n")
        assert (await reader.readuntil(b"\r\n\r\n")).startswith(b"HTTP/1.1 100 ")
        writer.write(b"body")
        await reader.readuntil(b"body")
        writer.close()

    with_proxy(peer, test)


def test_a_chunked_answer_with_trailers_keeps_the_connection_for_the_next_request() -> None:
    async def test(through: Through) -> None:
        reader, writer = await through.open()
        for _ in range(2):
            writer.write(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
            answer = await reader.readuntil(b"0\r\n\r\n")
            assert b"2\r\nok\r\n" in answer
            assert b"x-sum" not in answer.lower(), "trailers are left out"
        writer.close()

    chunked = b"Transfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\nX-Sum: 1\r\n\r\n"
    with_proxy(answering(b"HTTP/1.1 200 OK\r\nTrailer: X-Sum\r\n" + chunked), test)
