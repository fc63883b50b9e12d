"""How leases are renewed, with a service that a test plays."""

from __future__ import annotations

import contextvars
import logging
import threading
import time
from collections.abc import Callable
from typing import Any

import pytest

from sandbox_sync import InvalidArgumentException, Sandbox, SandboxException, SandboxNotFoundException, lease
from sandbox_sync.config import ConnectionConfig

ambient: contextvars.ContextVar[str] = contextvars.ContextVar("ambient", default="none")


def played(monkeypatch: pytest.MonkeyPatch, renew: Callable[[str, float], None]) -> ConnectionConfig:
    def set_timeout(_config: object, sandbox_id: str, _seconds: int, limit: float) -> None:
        renew(sandbox_id, limit)

    monkeypatch.setattr("sandbox_sync.lifecycle.set_timeout", set_timeout)
    return ConnectionConfig.resolve(api_key="e2b_0")


def test_slow_renewals_hold_up_no_other_and_see_nothing_of_the_caller(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    release, renewed, seen = threading.Event(), threading.Event(), []

    def renew(sandbox_id: str, limit: float) -> None:
        seen.append((ambient.get(), limit))
        if sandbox_id == "quick":
            renewed.set()
        else:
            release.wait(20)

    config = played(monkeypatch, renew)
    ambient.set("a deadline")
    slow = [lease.hold(config, f"slow{n}", 3, time.monotonic(), now=True) for n in range(10)]
    quick = lease.hold(config, "quick", 3, time.monotonic(), now=True)
    try:
        assert renewed.wait(5)
    finally:
        release.set()
        for one in [*slow, quick]:
            one.end()
    assert {told for told, _ in seen} == {"none"}
    assert all(0 < limit <= 1 for _, limit in seen)


def test_a_failed_renewal_is_logged_and_tried_again(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    again, attempts = threading.Event(), []

    def renew(sandbox_id: str, _limit: float) -> None:
        attempts.append(sandbox_id)
        if len(attempts) == 1:
            raise SandboxException("no way there")
        again.set()

    config = played(monkeypatch, renew)
    with caplog.at_level(logging.WARNING):
        held = lease.hold(config, "one", 3, time.monotonic(), now=True)
        assert again.wait(2)
        held.end()
    (record,) = caplog.records
    assert record.levelno == logging.WARNING
    assert "one" in record.getMessage()
    assert "no way there" in record.getMessage()


def test_one_that_is_gone_is_left_alone(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    attempts: list[float] = []

    def renew(_sandbox_id: str, _limit: float) -> None:
        attempts.append(time.monotonic())
        raise SandboxNotFoundException("gone")

    config = played(monkeypatch, renew)
    with caplog.at_level(logging.WARNING):
        held = lease.hold(config, "one", 3, time.monotonic(), now=True)
        time.sleep(2)
    assert len(attempts) == 1
    assert caplog.records == []
    held.end()


def test_ending_it_waits_for_the_renewal_under_way(monkeypatch: pytest.MonkeyPatch) -> None:
    """Otherwise it could undo a timeout that is set next."""
    began, done = threading.Event(), threading.Event()

    def renew(_sandbox_id: str, _limit: float) -> None:
        began.set()
        time.sleep(0.3)
        done.set()

    held = lease.hold(played(monkeypatch, renew), "one", 3, time.monotonic(), now=True)
    assert began.wait(5)
    held.end()
    assert done.is_set()


@pytest.mark.parametrize(
    "options", [{"lease": 2}, {"lease": True}, {"lease": 3.5}, {"lease": 30, "timeout": 60}], ids=str
)
def test_what_cannot_be_a_lease_is_refused(options: dict[str, Any]) -> None:
    with pytest.raises(InvalidArgumentException, match="lease"):
        Sandbox.create(api_key="e2b_0", **options)
