"""What tests against a running server share."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from sandbox_local import LocalServer
from tests.interruptible import let_ctrl_c_be_felt

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
    let_ctrl_c_be_felt()


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
