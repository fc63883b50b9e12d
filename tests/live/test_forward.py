"""`sandbox_local forward`: a port of this machine that leads to a port of a sandbox."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from sandbox_local import LocalServer
from tests.live.port_servers import listening, prepared, rest_of
from tests.raw_client import RawClient, Sandbox


@pytest.fixture(scope="module")
def client(server: LocalServer) -> RawClient:
    return RawClient.of(server)


@pytest.fixture(scope="module")
def sandbox(client: RawClient) -> Iterator[Sandbox]:
    """One for all tests that leave its ports as they found them."""
    with prepared(client) as made:
        yield made


@contextmanager
def forward(client: RawClient, *options: str) -> Iterator[tuple[subprocess.Popen[str], tuple[str, int]]]:
    """A `forward` process, and where it listens."""
    with subprocess.Popen(
        [sys.executable, "-m", "sandbox_local", "forward", *options],
        env={**os.environ, "E2B_SANDBOX_URL": client.url},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        try:
            assert process.stdout is not None
            host, _, port = process.stdout.readline().partition(" ")[0].rpartition(":")
            yield process, (host, int(port))
        finally:
            process.kill()


def test_forward_makes_a_port_of_this_machine(client: RawClient, sandbox: Sandbox) -> None:
    with listening(sandbox, 2000), forward(client, sandbox.id, "2000", "--listen", "0") as (process, address):
        assert address[0] == "127.0.0.1"
        with socket.create_connection(address, 30) as one, socket.create_connection(address, 30) as other:
            for connection, word in ((one, b"one"), (other, b"other")):
                assert connection.recv(6, socket.MSG_WAITALL) == b"hello "
                connection.sendall(word)
                assert connection.recv(len(word), socket.MSG_WAITALL) == word.upper()
            one.shutdown(socket.SHUT_WR)
            assert rest_of(one) == b" bye"
            process.send_signal(signal.SIGINT)
            _, errors = process.communicate(timeout=10)
            assert (process.returncode, errors) == (0, "")


def test_forward_says_what_is_wrong_and_goes_on(client: RawClient, sandbox: Sandbox) -> None:
    with forward(client, sandbox.id, "2000", "--listen", "127.0.0.1:0") as (process, address):
        with socket.create_connection(address, 30) as connection:
            assert rest_of(connection) == b""
        assert process.stderr is not None
        assert "port is not open" in process.stderr.readline()
        with listening(sandbox, 2000), socket.create_connection(address, 30) as connection:
            assert connection.recv(6, socket.MSG_WAITALL) == b"hello "


def test_forward_gives_the_traffic_token(client: RawClient, tmp_path: Path) -> None:
    with prepared(client, network={"allowPublicTraffic": False}) as sandbox:
        token = tmp_path / "token"
        token.write_text(sandbox.made["trafficAccessToken"] + "\n")
        options = [sandbox.id, "2000", "--listen", "0", "--traffic-token-file", str(token)]
        with (
            listening(sandbox, 2000),
            forward(client, *options) as (_, address),
            socket.create_connection(address, 30) as connection,
        ):
            assert connection.recv(6, socket.MSG_WAITALL) == b"hello "
        with forward(client, *options[:4]) as (process, address):
            with socket.create_connection(address, 30) as connection:
                assert rest_of(connection) == b""
            assert process.stderr is not None
            assert "403" in process.stderr.readline()


@pytest.mark.parametrize(
    ("options", "code", "words"),
    [
        (["inosuchsandbox", "80"], 1, "was not found"),
        (["{id}", "80", "--listen", "1.2.3.4:0"], 1, "--listen"),
        (["{id}", "80", "--url", "http://127.0.0.1:9"], 1, "http://127.0.0.1:9"),
        (["{id}", "80", "--url", "nonsense"], 2, "E2B_SANDBOX_URL"),
        (["{id}", "0"], 2, "65535"),
        (["{id}", "80", "--listen", ":80"], 2, "HOST:PORT"),
        (["../x", "80"], 2, "id of a sandbox"),
    ],
)
def test_forward_refuses_what_leads_nowhere(
    client: RawClient, sandbox: Sandbox, options: list[str], code: int, words: str
) -> None:
    run = subprocess.run(
        [sys.executable, "-m", "sandbox_local", "forward", *(o.format(id=sandbox.id) for o in options)],
        env={**os.environ, "E2B_SANDBOX_URL": client.url},
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )
    assert run.returncode == code, run.stderr
    assert words in run.stderr
    assert "Traceback" not in run.stderr
