"""What tests against a running server share."""

from __future__ import annotations

import signal
from collections.abc import Iterator

import pytest

from sandbox_local import LocalServer

# What a developer may have set for another server; no test may reach that one by mistake.
_FOREIGN = (
    "E2B_ACCESS_TOKEN",
    "E2B_API_KEY",
    "E2B_API_URL",
    "E2B_DEBUG",
    "E2B_DOMAIN",
    "E2B_SANDBOX_URL",
    "HTTP_PROXY",
    "HTTPS_PROXY",
    "ALL_PROXY",
    "http_proxy",
    "https_proxy",
    "all_proxy",
)


def pytest_configure() -> None:
    """Have the programs that tests start feel Ctrl-C, also where a shell runs the tests in the background."""
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(scope="session")
def server() -> Iterator[LocalServer]:
    """A server that the tests of one worker share: each test makes sandboxes of its own and ends them."""
    with LocalServer() as running:
        yield running
        assert "Traceback" not in running.log, running.log


@pytest.fixture
def server_env(server: LocalServer, monkeypatch: pytest.MonkeyPatch) -> dict[str, str]:
    """The environment of the test leads to the shared server, and to it alone."""
    for name in _FOREIGN:
        monkeypatch.delenv(name, raising=False)
    for name, value in server.env.items():
        monkeypatch.setenv(name, value)
    return server.env
