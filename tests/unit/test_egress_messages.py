"""What comes out of sandboxes and from name servers: DNS, TLS and HTTP, however malformed."""

from __future__ import annotations

import ssl
import struct
from ipaddress import IPv4Address

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sandbox_local.egress import message, sniff

ASKED = message.ask(7, "www.example.com", message.A)


def answer(*addresses: str, asked: bytes = ASKED) -> bytes:
    head = bytearray(message.reply(asked))
    alias = b"\xc0\x0c" + struct.pack("!HHIH", 5, 1, 60, 4) + b"\x01a\xc0\x10"
    records = [
        b"\xc0\x0c" + struct.pack("!HHIH", message.A, 1, 60, 4) + IPv4Address(address).packed
        for address in addresses
    ]
    head[6:8] = struct.pack("!H", len(records) + 1)
    return bytes(head) + alias + b"".join(records)


def test_a_question_and_its_answer() -> None:
    assert message.question(ASKED)[:2] == ("www.example.com", message.A)
    assert message.question(ASKED.replace(b"www", b"WwW")).name == "www.example.com"
    told = answer("192.0.2.1", "192.0.2.2")
    assert message.answers(ASKED, told)
    assert message.addresses(told) == [IPv4Address("192.0.2.1"), IPv4Address("192.0.2.2")]
    assert message.number_of(message.numbered(told, 9)) == 9


@pytest.mark.parametrize(
    "told",
    [
        ASKED,
        b"",
        message.numbered(answer("192.0.2.1"), 8),
        answer("192.0.2.1", asked=message.ask(7, "evil.example.com", message.A)),
        answer("192.0.2.1", asked=message.ask(7, "www.example.com", message.AAAA)),
    ],
    ids=["the question", "nothing", "another number", "another name", "another type"],
)
def test_what_is_not_the_answer(told: bytes) -> None:
    assert not message.answers(ASKED, told)


@given(st.binary(max_size=100), st.integers(0, 60))
def test_no_bytes_are_worse_than_malformed(noise: bytes, place: int) -> None:
    told = answer("192.0.2.1")
    for data in (noise, told[:place] + noise, told[:place] + noise + told[place:]):
        for read in (message.question, message.addresses, message.reply):
            try:
                read(data)
            except (message.Malformed, struct.error):
                pass
        message.answers(ASKED, data)
        for sniffer in (sniff.tls_name, sniff.http_host):
            try:
                sniffer(data)
            except sniff.NoName:
                pass


def hello(name: str | None) -> bytes:
    context = ssl.create_default_context()
    context.check_hostname = False
    outgoing = ssl.MemoryBIO()
    tls = context.wrap_bio(ssl.MemoryBIO(), outgoing, server_hostname=name)
    with pytest.raises(ssl.SSLWantReadError):
        tls.do_handshake()
    return outgoing.read()


def test_the_server_name_of_a_real_hello_however_it_is_cut() -> None:
    data = hello("www.Example.com")
    assert sniff.tls_name(data) == "www.example.com"
    assert sniff.tls_name(data + b"more") == "www.example.com"
    assert all(sniff.tls_name(data[:end]) is None for end in range(len(data)))
    body, record = data[5:], data[:3]
    pieces = [body[:50], body[50:51], body[51:]]
    split = b"".join(record + struct.pack("!H", len(piece)) + piece for piece in pieces)
    assert sniff.tls_name(split) == "www.example.com"


@pytest.mark.parametrize("data", [hello(None), b"SSH-2.0-x\r\n", b"\x16\x03\x01\x00\x05\x02\x00\x00\x00\x00"])
def test_tls_without_a_name(data: bytes) -> None:
    with pytest.raises(sniff.NoName):
        sniff.tls_name(data)


def test_the_host_of_a_request() -> None:
    request = b"GET / HTTP/1.1\r\nAccept: *\r\nHOST: Example.com:80\r\n\r\n"
    assert sniff.http_host(request) == "example.com"
    assert all(sniff.http_host(request[:end]) is None for end in range(len(request)))
    assert sniff.http_host(b"GET http://a.test/ HTTP/1.1\nHost: a.test\n\nbody") == "a.test"


@pytest.mark.parametrize(
    "request_bytes",
    [
        b"GET / HTTP/1.1\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: a.test\r\nHost: b.test\r\n\r\n",
        b"GET http://b.test/ HTTP/1.1\r\nHost: a.test\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: a b\r\n\r\n",
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
        b"hello\n\n",
    ],
)
def test_requests_without_one_host(request_bytes: bytes) -> None:
    with pytest.raises(sniff.NoName):
        sniff.http_host(request_bytes)
