"""What the tests of frameworks share."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from sandbox_local import LocalServer
from sandbox_sync import Sandbox
from tests.contrib.serving import ids, wait_for


@pytest.fixture(scope="module")
def counted_server() -> Iterator[LocalServer]:
    """A server whose sandboxes are all the module's own, so that they can be counted."""
    with LocalServer() as running:
        yield running


@pytest.fixture
def own_server(
    server_env: dict[str, str], counted_server: LocalServer, monkeypatch: pytest.MonkeyPatch
) -> dict[str, str]:
    """The environment leads to that server, where a test begins without sandboxes."""
    for name, value in counted_server.env.items():
        monkeypatch.setenv(name, value)
    for left in ids():  # by a test that failed
        Sandbox.kill(left)
    return counted_server.env


@pytest.fixture(scope="session")
def redis_url() -> Iterator[str]:
    """A broker."""
    command = shutil.which("redis-server") or shutil.which("valkey-server")
    if command is None:
        pytest.skip("there is no Redis to be the broker (Debian and Ubuntu: apt install redis-server)")
    with tempfile.TemporaryDirectory(prefix="redis-") as directory:
        address = os.path.join(directory, "socket")
        with Path(directory, "log").open("wb") as log:
            running = subprocess.Popen(
                [command, "--port", "0", "--unixsocket", address, "--save", "", "--dir", directory],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
            )
        try:
            wait_for(lambda: running.poll() is not None or _answers(address), "Redis")
            assert running.poll() is None, Path(directory, "log").read_text()
            yield f"redis+socket://{address}"
        finally:
            running.kill()
            running.wait()


def _answers(address: str) -> bool:
    with socket.socket(socket.AF_UNIX) as client:
        try:
            client.connect(address)
        except OSError:
            return False
    return True
