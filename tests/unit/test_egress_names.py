"""What a sandbox is told by DNS, with a real name server of the host's in reach."""

from __future__ import annotations

import asyncio
import struct
from ipaddress import IPv4Address
from typing import cast

import pytest

from sandbox_local.egress import message, resolver
from sandbox_local.egress.names import Names
from sandbox_local.egress.policy import Policy
from sandbox_local.egress.resolver import Resolver, host_servers

ADDRESS = "203.0.113.9"


class NameServer(asyncio.DatagramProtocol):
    """Answers everything with one address, after an answer that somebody else forged."""

    def __init__(self) -> None:
        self.asked: list[bytes] = []

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.DatagramTransport, transport)

    def datagram_received(self, data: bytes, address: tuple[str, int]) -> None:
        self.asked.append(data)
        head = bytearray(message.reply(data))
        head[7] = 1
        record = b"\xc0\x0c" + struct.pack("!HHIH", message.A, 1, 60, 4)
        forged = message.numbered(bytes(head), message.number_of(data) ^ 1)
        self._transport.sendto(forged + record + IPv4Address("6.6.6.6").packed, address)
        self._transport.sendto(bytes(head) + record + IPv4Address(ADDRESS).packed, address)


async def ask(policy: Policy, asked: bytes) -> tuple[bytes | None, Names, NameServer]:
    transport, server = await asyncio.get_running_loop().create_datagram_endpoint(
        NameServer, local_addr=("127.0.0.1", 0)
    )
    address = transport.get_extra_info("sockname")
    names = Names(Resolver(lambda: [address]), policy)
    try:
        return await asyncio.wait_for(names.answer(asked, stream=False), 20), names, server
    finally:
        transport.close()


def run(policy: Policy, asked: bytes) -> tuple[bytes | None, Names, NameServer]:
    return asyncio.run(ask(policy, asked))


def code(answer: bytes | None) -> int:
    assert answer is not None
    return answer[3] & 15


def test_a_question_goes_to_the_name_server_under_another_number_and_its_answer_back() -> None:
    answer, names, server = run(Policy(), message.ask(77, "a.test", message.A))
    assert answer is not None
    assert message.number_of(answer) == 77
    assert message.addresses(answer) == [IPv4Address(ADDRESS)]
    assert len(server.asked) == 1
    assert names.permitted(IPv4Address(ADDRESS)) is None


def test_the_address_of_an_allowed_name_is_remembered_for_as_long_as_it_is_allowed() -> None:
    _, names, _ = run(Policy(False, ("*.test",)), message.ask(1, "A.test", message.A))
    assert names.permitted(IPv4Address(ADDRESS)) == "a.test"
    assert names.permitted(IPv4Address("6.6.6.6")) is None
    names.policy = Policy(False, ("other.test",))
    assert names.permitted(IPv4Address(ADDRESS)) is None


@pytest.mark.parametrize("kind", [message.AAAA, message.HTTPS, message.SVCB])
def test_what_is_withheld_is_empty_and_not_asked_for(kind: int) -> None:
    answer, _, server = run(Policy(), message.ask(1, "a.test", kind))
    assert code(answer) == 0
    assert message.addresses(answer or b"") == []
    assert server.asked == []


@pytest.mark.parametrize(
    ("policy", "asked"),
    [
        (Policy(False), message.ask(1, "a.test", message.A)),
        (Policy(False, ("b.test",)), message.ask(1, "secret.a.test", message.A)),
        (Policy(), message.ask(1, "corp.test", message.AXFR)),
    ],
    ids=["no internet", "another name", "a zone"],
)
def test_what_is_not_to_be_asked_is_refused_here(policy: Policy, asked: bytes) -> None:
    answer, _, server = run(policy, asked)
    assert code(answer) == message.REFUSED
    assert server.asked == []


def test_nonsense_gets_no_answer() -> None:
    for asked in (b"", b"x" * 40, message.ask(1, "a.test", 1)[:-3]):
        assert run(Policy(), asked)[0] is None


def test_silent_name_servers_are_a_failure_in_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(resolver, "_SECONDS", 0.1)

    async def work() -> bytes | None:
        transport, _ = await asyncio.get_running_loop().create_datagram_endpoint(
            asyncio.DatagramProtocol, local_addr=("127.0.0.1", 0)
        )
        silent = transport.get_extra_info("sockname")
        names = Names(Resolver(lambda: [silent, ("127.0.0.1", 9)]), Policy())
        answer = await names.answer(message.ask(1, "a.test", message.A), stream=False)
        transport.close()
        return answer

    assert code(asyncio.run(asyncio.wait_for(work(), 10))) == message.SERVER_FAILED


def test_the_name_servers_of_the_host_are_those_of_its_file() -> None:
    servers = host_servers()
    assert 1 <= len(servers) <= 3
    assert all(port == 53 for _, port in servers)
