"""Bounds that are best seen at the part that keeps them."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator
from contextlib import ExitStack

import pytest

from sandbox_local.envd.multipart import Multipart, MultipartError
from sandbox_local.http import Headers, Limits, Request, Response
from sandbox_local.http.exchange import outgoing_fields
from sandbox_local.isolation import wire
from tests.unit.engine_testbed import serving
from tests.unit.http2_client import Http2


async def _handler(request: Request) -> Response:
    if request.path == "/wait":
        await asyncio.sleep(60)
    return Response(200, body=await request.body.read(1 << 20))


def _answer(limits: Limits, message: bytes) -> bytes:
    """The beginning of what the server answers, or nothing if it neither answers nor closes."""
    with ExitStack() as stack:
        server = stack.enter_context(serving(_handler, limits=limits))
        sock = stack.enter_context(socket.create_connection(("127.0.0.1", server.port), timeout=2))
        try:
            sock.sendall(message)
            return sock.recv(1 << 16)
        except (TimeoutError, ConnectionError):
            return b""


def test_a_head_that_drips_is_refused() -> None:
    assert _answer(Limits(header_seconds=0.3), b"GET / HTTP/1.1\r\nHo").startswith(b"HTTP/1.1 408 ")


def test_bytes_outside_of_messages_are_bounded() -> None:
    flood = b"POST / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n1;" + b"x" * 600_000
    assert _answer(Limits(), flood) != b"", "it swallows them"


def test_resets_are_counted() -> None:
    with serving(_handler, limits=Limits(h2_resets=20)) as server, Http2(server.port) as client:
        client.sock.settimeout(2)
        for _ in range(21):
            client.reset(client.send("GET", "/wait"))
        try:
            closed = client.wait_until_closed()
        except TimeoutError:
            closed = False
        assert closed


@pytest.mark.parametrize("value", ["a\r\nset-cookie: b", "a\nb", "a\0b"])
def test_no_field_of_an_answer_breaks_out_of_its_line(value: str) -> None:
    with pytest.raises(ValueError, match="break out"):
        outgoing_fields(Headers({"x": value}))


@pytest.mark.parametrize("header", [b"\xff\xff\xff\xff\0", b"\0\0\0\2\x09"])
def test_frames_of_a_box_are_bounded(header: bytes) -> None:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        theirs.sendall(header)
        with pytest.raises(wire.WireError):
            wire.Decoder().read(ours)


def test_the_header_of_a_part_is_bounded() -> None:
    async def body() -> AsyncIterator[bytes]:
        yield b"--b\r\nx: "
        for _ in range(64):
            yield b"y" * (64 << 10)

    async def work() -> None:
        with pytest.raises(MultipartError, match="too long"):
            await Multipart(body(), "b").next_part()

    asyncio.run(work())
