"""What the tests of the SDK against the embedded server share."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from sandbox_sync import Sandbox


@pytest.fixture(params=["connect", "grpc"])
def transport(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Each test runs on both wires."""
    monkeypatch.setenv("SANDBOX_SYNC_TRANSPORT", request.param)
    return str(request.param)


@pytest.fixture
def sandbox(server_env: dict[str, str], transport: str) -> Iterator[Sandbox]:
    """A sandbox of the test's own."""
    with Sandbox.create(timeout=300) as sandbox:
        yield sandbox
