"""Asking the name servers of the host."""

from __future__ import annotations

import asyncio
import re
import secrets
from collections.abc import Callable, Sequence
from ipaddress import IPv4Address
from pathlib import Path

from sandbox_local.egress import message

Server = tuple[str, int]

_RESOLV_CONF = Path("/etc/resolv.conf")
_MOST_SERVERS = 3
_SECONDS = 3.0
"""What each server has for its answer."""


class NoAnswer(OSError):
    """No name server has answered."""


def host_servers() -> list[Server]:
    """The name servers that the host uses now."""
    try:
        text = _RESOLV_CONF.read_text(encoding="utf-8", errors="replace")
    except OSError:
        text = ""
    found = re.findall(r"^\s*nameserver\s+([0-9A-Fa-f:.]+(?:%\S+)?)\s*$", text, re.MULTILINE)
    return [(address, 53) for address in found[:_MOST_SERVERS]] or [("127.0.0.1", 53)]


class Resolver:
    """Passes questions on.

    Args:
        servers: Tells whom to ask, in this order.
    """

    def __init__(self, servers: Callable[[], Sequence[Server]] = host_servers) -> None:
        self._servers = servers

    async def forward(self, asked: bytes, *, stream: bool = False) -> bytes:
        """The answer to a message, of whatever kind.

        Args:
            asked: The message; it has one question.
            stream: Whether to ask over TCP, by which longer answers come.

        Raises:
            NoAnswer: There is none.
        """
        own = message.numbered(asked, secrets.randbits(16))
        for server in self._servers():
            try:
                by = _by_stream if stream else _by_datagram
                answer = await asyncio.wait_for(by(server, own), _SECONDS)
            except (OSError, asyncio.TimeoutError, asyncio.IncompleteReadError):
                continue
            return message.numbered(answer, message.number_of(asked))
        raise NoAnswer("no name server of the host has answered")

    async def addresses(self, name: str) -> list[IPv4Address]:
        """The IPv4 addresses of a name.

        Raises:
            NoAnswer: No name server has told.
        """
        try:
            answer = await self.forward(message.ask(0, name, message.A))
            return message.addresses(answer)
        except ValueError as error:
            raise NoAnswer(f"{name}: {error}") from None


async def _by_datagram(server: Server, asked: bytes) -> bytes:
    # A socket for each question: its port is one thing more that a forger would have to guess.
    loop = asyncio.get_running_loop()
    answer: asyncio.Future[bytes] = loop.create_future()
    transport, _ = await loop.create_datagram_endpoint(lambda: _Waiting(asked, answer), remote_addr=server)
    try:
        transport.sendto(asked)
        return await answer
    finally:
        transport.close()


class _Waiting(asyncio.DatagramProtocol):
    def __init__(self, asked: bytes, answer: asyncio.Future[bytes]) -> None:
        self._asked = asked
        self._answer = answer

    def datagram_received(self, data: bytes, address: object) -> None:
        if not self._answer.done() and message.answers(self._asked, data):
            self._answer.set_result(data)

    def error_received(self, error: Exception) -> None:
        if not self._answer.done():
            self._answer.set_exception(error)


async def _by_stream(server: Server, asked: bytes) -> bytes:
    reader, writer = await asyncio.open_connection(*server)
    try:
        writer.write(len(asked).to_bytes(2, "big") + asked)
        answer = await reader.readexactly(int.from_bytes(await reader.readexactly(2), "big"))
    finally:
        writer.transport.abort()
    if not message.answers(asked, answer):
        raise NoAnswer("a name server has answered something else")
    return answer
