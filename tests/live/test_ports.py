"""Ports of a real sandbox: whatever listens inside is reached from outside, over HTTP and over plain TCP."""

from __future__ import annotations

import hashlib
import os
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import requests

from sandbox_local import LocalServer
from tests.live.port_servers import connected, listening, prepared, rest_of
from tests.raw_client import RawClient, Sandbox


@pytest.fixture(scope="module")
def client(server: LocalServer) -> RawClient:
    return RawClient.of(server)


@pytest.fixture(scope="module")
def sandbox(client: RawClient) -> Iterator[Sandbox]:
    """One for all tests that leave its ports as they found them."""
    with prepared(client) as made:
        yield made


@pytest.mark.parametrize("host", ["127.0.0.1", "0.0.0.0", "::1", "::"])
def test_a_server_is_reached_on_whatever_address_it_listens(sandbox: Sandbox, host: str) -> None:
    with listening(sandbox, 8000, "http", host):
        assert sandbox.ask("GET", "/a?b=c", port=8000).text == "GET /a?b=c None"


def test_head_has_the_length_and_keeps_the_connection(client: RawClient, sandbox: Sandbox) -> None:
    with listening(sandbox, 8000, "http"), requests.Session() as session:
        where = {"E2b-Sandbox-Id": sandbox.id, "E2b-Sandbox-Port": "8000"}
        for _ in range(2):
            answer = session.head(client.url + "/x", headers=where, timeout=30)
            assert (answer.headers["content-length"], answer.content) == ("12", b"")
            assert answer.headers.get("connection") != "close"


def test_events_come_when_they_are_sent(client: RawClient, sandbox: Sandbox) -> None:
    with (
        listening(sandbox, 8000, "events") as pid,
        sandbox.ask("GET", "/", port=8000, stream=True) as answer,
    ):
        assert answer.headers["content-type"] == "text/event-stream"
        lines = answer.iter_lines()
        assert next(lines) == b"data: first"
        sandbox.run(f"echo > /proc/{pid}/fd/0")
        assert [line for line in lines if line] == [b"data: second"]


def test_an_upload_larger_than_its_share_of_memory_passes_in_flat_memory(
    server: LocalServer, sandbox: Sandbox
) -> None:
    size = 256 << 20
    piece = os.urandom(1 << 20)
    digest = hashlib.sha256()

    def pieces() -> Iterator[bytes]:
        for _ in range(size // len(piece)):
            digest.update(piece)
            yield piece

    def peak() -> int:
        status = Path(f"/proc/{server.pid}/status").read_text()
        return int(status.partition("VmHWM:")[2].split()[0]) << 10

    with listening(sandbox, 8000, "http"):
        Path(f"/proc/{server.pid}/clear_refs").write_text("5")
        before = peak()
        answer = sandbox.ask(
            "PUT", "/", port=8000, data=_Sized(pieces(), size), headers={"Content-Length": str(size)}
        )
        assert answer.text == digest.hexdigest()
        assert peak() - before < 32 << 20


class _Sized:
    """An iterable whose length `requests` knows, so that it does not send chunks."""

    def __init__(self, pieces: Iterator[bytes], size: int) -> None:
        self._pieces = pieces
        self._size = size

    def __iter__(self) -> Iterator[bytes]:
        return self._pieces

    def __len__(self) -> int:
        return self._size


@pytest.mark.parametrize("how", ["host", "headers"])
def test_connect_tunnels_plain_tcp(client: RawClient, sandbox: Sandbox, how: str) -> None:
    head = {
        "host": f"CONNECT 2000-{sandbox.id}.localhost:80 HTTP/1.1\nHost: 2000-{sandbox.id}.localhost:80",
        "headers": "CONNECT somewhere:1 HTTP/1.1\nHost: somewhere:1\n"
        f"E2b-Sandbox-Id: {sandbox.id}\nE2b-Sandbox-Port: 2000",
    }[how]
    with listening(sandbox, 2000), connected(client, head) as (connection, answer):
        assert answer.startswith(b"HTTP/1.1 200 ")
        assert connection.recv(6, socket.MSG_WAITALL) == b"hello "
        connection.sendall(b"\x00\xffnot http\n")
        connection.shutdown(socket.SHUT_WR)
        assert rest_of(connection) == b"\x00\xffNOT HTTP\n bye"


def test_a_tunnel_carries_much_both_ways_at_once(client: RawClient, sandbox: Sandbox) -> None:
    blob = b"x" * (8 << 20)
    with (
        listening(sandbox, 2000),
        connected(client, f"CONNECT 2000-{sandbox.id}.x:1 HTTP/1.1\nHost: x") as (connection, _),
    ):

        def send() -> None:
            connection.sendall(blob)
            connection.shutdown(socket.SHUT_WR)

        sending = threading.Thread(target=send)
        sending.start()
        received = rest_of(connection)
        sending.join()
    assert received == b"hello " + blob.upper() + b" bye"


@pytest.mark.parametrize(
    ("target", "status", "words"),
    [
        ("9-{id}.localhost:80", b"502", b"port is not open"),
        ("80-inosuchsandbox.localhost:80", b"502", b"was not found"),
        ("99999-{id}.localhost:80", b"400", b"invalid port"),
        ("49983-{id}.localhost:80", b"405", b"no tunnel"),
        ("example.com:443", b"400", b"PORT-SANDBOXID.localhost"),
    ],
)
def test_a_tunnel_to_nowhere_is_refused(
    client: RawClient, sandbox: Sandbox, target: str, status: bytes, words: bytes
) -> None:
    target = target.format(id=sandbox.id)
    head = f"CONNECT {target} HTTP/1.1\nHost: {target}\nConnection: close"
    with connected(client, head) as (connection, answer):
        assert answer.split()[1] == status
        assert words in rest_of(connection)


def test_the_end_of_the_sandbox_ends_its_tunnels(client: RawClient) -> None:
    with prepared(client) as sandbox, listening_unattended(sandbox, 2000):
        head = f"CONNECT 2000-{sandbox.id}.x:1 HTTP/1.1\nHost: x"
        with connected(client, head) as (connection, _):
            assert connection.recv(6, socket.MSG_WAITALL) == b"hello "
            client.ask("DELETE", sandbox.path)
            assert connection.recv(1) == b""


@contextmanager
def listening_unattended(sandbox: Sandbox, port: int) -> Iterator[None]:
    """A server in a sandbox that ends before it."""
    events = sandbox.start(f"exec python3 /tmp/listen.py 127.0.0.1 {port} tcp", stdin=True)
    next(events)
    next(events)
    yield
    events.close()


def test_closed_ports_want_the_token_of_every_kind_of_connection(client: RawClient) -> None:
    with prepared(client, network={"allowPublicTraffic": False}) as sandbox:
        token = sandbox.made["trafficAccessToken"]
        host = f"2000-{sandbox.id}.localhost"
        connect = f"CONNECT {host}:80 HTTP/1.1\nHost: {host}:80\nConnection: close\n"
        upgrade = f"GET / HTTP/1.1\nHost: {host}\nConnection: upgrade\nUpgrade: any\n"
        with listening(sandbox, 2000):
            for head in (connect, upgrade, f"GET / HTTP/1.1\nHost: {host}\nConnection: close\n"):
                for wrong in ("", "E2b-Traffic-Access-Token: wrong\n"):
                    with connected(client, head + wrong) as (_, answer):
                        assert answer.startswith(b"HTTP/1.1 403 ")
            with connected(client, f"{connect}E2b-Traffic-Access-Token: {token}") as (connection, answer):
                assert answer.startswith(b"HTTP/1.1 200 ")
                assert connection.recv(6, socket.MSG_WAITALL) == b"hello "
        with listening(sandbox, 8000, "http"):
            through = sandbox.ask("GET", "/", port=8000, headers={"e2b-traffic-access-token": token})
            assert through.text == "GET / None", "the token is for the proxy alone"


def test_who_has_no_token_does_not_wake_a_sandbox_up(client: RawClient) -> None:
    fields = {"autoPause": True, "autoResume": {"enabled": True}}
    with prepared(client, network={"allowPublicTraffic": False}, **fields) as sandbox:

        def state() -> str:
            return str(client.ask("GET", sandbox.path).json()["state"])

        with listening(sandbox, 8000, "http"):
            assert client.ask("POST", sandbox.path + "/pause").status_code == 204
            assert sandbox.ask("GET", "/", port=8000).status_code == 403
            assert state() == "paused"
            token = {"e2b-traffic-access-token": sandbox.made["trafficAccessToken"]}
            assert sandbox.ask("GET", "/", port=8000, headers=token).text == "GET / None"
            assert state() == "running"


def test_a_tunnel_wakes_up_a_sandbox_that_resumes_by_itself_and_no_other(client: RawClient) -> None:
    with (
        prepared(client, autoPause=True, autoResume={"enabled": True}) as waking,
        prepared(client, autoPause=True) as sleeping,
    ):
        for sandbox, status in ((waking, b"200"), (sleeping, b"502")):
            events = sandbox.start("exec python3 /tmp/listen.py 127.0.0.1 2000 tcp", stdin=True)
            next(events), next(events)
            assert client.ask("POST", sandbox.path + "/pause").status_code == 204
            head = f"CONNECT 2000-{sandbox.id}.x:1 HTTP/1.1\nHost: x\nConnection: close"
            with connected(client, head) as (connection, answer):
                assert answer.split()[1] == status
                if status == b"200":
                    assert connection.recv(6, socket.MSG_WAITALL) == b"hello "
                else:
                    assert b"The sandbox was not found" in rest_of(connection)
            events.close()


BROWSER = {"User-Agent": "Mozilla/5.0 (X11; Linux x86_64) Firefox/140.0", "Accept": "text/html,*/*;q=0.8"}


def test_a_browser_is_shown_a_page(sandbox: Sandbox) -> None:
    answer = sandbox.ask("GET", "/", port=9, headers=BROWSER)
    assert answer.status_code == 502
    assert answer.headers["content-type"] == "text/html; charset=utf-8"
    assert "The sandbox is running but port is not open" in answer.text
    assert sandbox.id in answer.text


@pytest.mark.parametrize(
    "headers",
    [
        {**BROWSER, "Accept": "application/json"},
        {**BROWSER, "Content-Type": "application/json"},
        {**BROWSER, "Connect-Protocol-Version": "1"},
        {"Accept": "text/html"},
    ],
)
def test_programs_get_json_in_a_browser_too(sandbox: Sandbox, headers: dict[str, str]) -> None:
    assert sandbox.ask("GET", "/", port=9, headers=headers).json()["port"] == 9
