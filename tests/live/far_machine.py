"""Another machine: a network namespace at the end of a cable, with real servers and addresses of all kinds.

`in_far_network` runs something in a thread that is, with all it starts, in a network namespace of its own
that knows no other machine. It needs root; `require_root` says so.
"""

from __future__ import annotations

import asyncio
import os
import socket
import struct
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TypeVar, cast

import pytest

from sandbox_local.egress import message
from sandbox_local.isolation import syscalls
from sandbox_local.isolation.inside import netlink
from sandbox_local.isolation.inside.netlink import Request, attribute, nested, text

OUTSIDE = "203.0.113.5"
OTHER = "203.0.113.6"
PRIVATE = "10.9.9.9"
METADATA = "169.254.169.254"
OURS = "198.51.100.1"
_FAR = "198.51.100.2"
ECHO, BLAST, WEB, TLS, OTHER_PORT = 8000, 9000, 80, 443, 2222
BLAST_BYTES = 256 << 20

NAMES = {
    "good.test": [OUTSIDE],
    "www.good.test": [OUTSIDE],
    "bad.test": [OTHER],
    "rebound.test": ["127.0.0.1"],
    "host.test": [OURS],
    "private.test": [PRIVATE],
    "metadata.test": [METADATA],
}

_Result = TypeVar("_Result")


def require_root() -> None:
    """Skip where no other machine can be played."""
    if os.geteuid() != 0:
        pytest.skip("only root can make the network namespace that plays another machine")


def in_far_network(work: Callable[[], _Result]) -> _Result:
    """Do something in a thread whose network has nothing but the far machine.

    It must not fork: threads that fork handlers start would be in that network for good.
    """
    results: list[_Result] = []
    errors: list[BaseException] = []

    def run() -> None:
        try:
            with _far_machine():
                results.append(work())
        except BaseException as error:  # noqa: BLE001  it is raised again by the caller
            errors.append(error)

    thread = threading.Thread(target=run)
    thread.start()
    thread.join(100)
    if errors:
        raise errors[0]
    (result,) = results
    return result


@contextmanager
def _far_machine() -> Iterator[None]:
    syscalls.unshare(syscalls.CLONE_NEWNET)
    syscalls.loopback_up()
    root = Path(__file__).parents[2]
    with subprocess.Popen(
        [sys.executable, "-m", "tests.live.far_machine"],
        cwd=root,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    ) as far:
        assert far.stdin is not None
        assert far.stdout is not None
        assert far.stdout.readline() == b"apart\n"
        _cable(far.pid)
        _address("near", OURS, 24)
        _default_route("near")
        far.stdin.write(b"cable\n")
        far.stdin.flush()
        assert far.stdout.readline() == b"serving\n"
        try:
            yield
        finally:
            far.stdin.close()
            try:
                far.wait(10)
            except subprocess.TimeoutExpired:
                far.kill()


def _cable(pid: int) -> None:
    link = struct.pack("=BxHiII", 0, 0, 0, 0, 0)
    peer = nested(1, link, text(3, "far"), attribute(19, struct.pack("=I", pid)))
    veth = link + text(3, "near") + nested(18, text(1, "veth"), nested(2, peer))
    netlink.change([Request(16, veth, "a cable")])
    _up("near")


def _up(name: str) -> None:
    link = struct.pack("=BxHiII", 0, 0, socket.if_nametoindex(name), 1, 1)
    netlink.change([Request(16, link, f"{name} up")])


def _address(name: str, address: str, prefix: int) -> None:
    own = socket.inet_aton(address)
    body = struct.pack("=BBBBI", socket.AF_INET, prefix, 0, 0, socket.if_nametoindex(name))
    netlink.change([Request(20, body + attribute(2, own) + attribute(1, own), f"address {address}")])


def _default_route(name: str) -> None:
    route = struct.pack("=BBBBBBBBI", socket.AF_INET, 0, 0, 0, 254, 4, 253, 1, 0)
    device = attribute(4, struct.pack("=I", socket.if_nametoindex(name)))
    netlink.change([Request(24, route + device, "a default route")])


# What runs on the far machine.


async def _echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    while data := await reader.read(1 << 16):
        writer.write(data)
        await writer.drain()
    writer.write(b"[end]")
    writer.close()


async def _blast(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    piece = bytes(1 << 20)
    for _ in range(BLAST_BYTES >> 20):
        writer.write(piece)
        await writer.drain()
    writer.close()


async def _tell(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Say where it is, once something has been said."""
    await reader.read(1)
    body = f"this is {writer.get_extra_info('sockname')[0]}".encode()
    writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n%b" % (len(body), body))
    writer.close()


def _dns(asked: bytes) -> bytes:
    question = message.question(asked)
    found = NAMES.get(question.name)
    answer = bytearray(message.reply(asked, 0 if found else 3))
    for address in found or [] if question.kind == message.A else []:
        answer += b"\xc0\x0c" + struct.pack("!HHIH", message.A, 1, 60, 4) + socket.inet_aton(address)
        answer[7] += 1
    return bytes(answer)


class _Dns(asyncio.DatagramProtocol):
    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.DatagramTransport, transport)

    def datagram_received(self, data: bytes, address: tuple[str, int]) -> None:
        self._transport.sendto(_dns(data), address)


async def _dns_stream(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    answer = _dns(await reader.readexactly(int.from_bytes(await reader.readexactly(2), "big")))
    writer.write(len(answer).to_bytes(2, "big") + answer)
    writer.close()


async def _serve() -> None:
    loop = asyncio.get_running_loop()
    handlers = {ECHO: _echo, BLAST: _blast, WEB: _tell, TLS: _tell, OTHER_PORT: _tell, 53: _dns_stream}
    servers = [
        await asyncio.start_server(handler, "0.0.0.0", port, backlog=1024)
        for port, handler in handlers.items()
    ]
    await loop.create_datagram_endpoint(_Dns, local_addr=(OUTSIDE, 53))
    print("serving", flush=True)  # noqa: T201
    await loop.run_in_executor(None, sys.stdin.read)
    for server in servers:
        server.close()
    os._exit(0)


def _main() -> None:
    syscalls.unshare(syscalls.CLONE_NEWNET)
    syscalls.loopback_up()
    print("apart", flush=True)  # noqa: T201
    sys.stdin.readline()
    _up("far")
    _address("far", _FAR, 24)
    for address in (OUTSIDE, OTHER, PRIVATE, METADATA):
        _address("far", address, 32)
    asyncio.run(_serve())


if __name__ == "__main__":
    _main()
