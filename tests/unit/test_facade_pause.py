"""Pausing, measuring, copying and saving sandboxes, against a service that does what a test says."""

from __future__ import annotations

from datetime import datetime, timedelta, timezone
from typing import Any

import pytest

from sandbox_sync import (
    ConflictException,
    GuestUnresponsiveException,
    InvalidArgumentException,
    RateLimitException,
    RequestTimeoutException,
    Sandbox,
    SandboxException,
    SandboxMetrics,
    SandboxNotFoundException,
    SnapshotInfo,
)
from tests.unit.facade_service import CREATED, Service, running, sandbox

PAUSE = "/sandboxes/isandbox/pause"
CONFLICT = (409, {"code": 409, "message": "sandbox isandbox cannot be paused"})
UNRESPONSIVE = (
    409,
    {"code": 409, "error_code": "sandbox_snapshot_guest_agent_unresponsive", "message": "no"},
)
NOON = datetime(2026, 11, 23, 12, tzinfo=timezone.utc)


def detail(service: Service, state: str) -> None:
    service.answer("GET", "/sandboxes/isandbox", (200, {**CREATED, "state": state}))


def options_of(sb: Sandbox) -> dict[str, Any]:
    return {"api_key": "key", "api_url": sb.connection_config.api_url}


def test_pause_in_both_forms() -> None:
    with sandbox() as (service, sb):
        service.answer("POST", PAUSE, (204, None))
        assert sb.pause() is True
        assert sb.pause(mode="filesystem", strict=True) is True
        assert Sandbox.pause("isandbox", mode="full", **options_of(sb)) is True
        assert [asked.body for asked in service.requests("POST")[1:]] == [
            {},
            {"memory": False, "requireHealthyGuest": True},
            {"memory": True},
        ]
        with pytest.raises(SandboxNotFoundException):
            Sandbox.pause("iother", **options_of(sb))
        with pytest.raises(InvalidArgumentException, match="mode"):
            sb.pause(mode="half")  # type: ignore[arg-type]


def test_paused_already_is_said_on_evidence_alone() -> None:
    """G59: a conflict has many reasons; False says that this is the one, and the service was asked."""
    with sandbox() as (service, sb):
        service.answer("POST", PAUSE, CONFLICT)
        detail(service, "paused")
        assert sb.pause() is False
        detail(service, "running")
        with pytest.raises(ConflictException, match="cannot be paused"):
            sb.pause()
        service.answer("GET", "/sandboxes/isandbox", (404, {"code": 404, "message": "gone"}))
        with pytest.raises(SandboxNotFoundException):
            sb.pause()
        service.answer("POST", PAUSE, UNRESPONSIVE)
        detail(service, "paused")
        with pytest.raises(GuestUnresponsiveException):
            sb.pause()


def test_a_pause_whose_first_answer_was_lost_has_worked() -> None:
    """G59: "paused already" after an attempt that got no clear answer means that this call paused it."""
    with sandbox() as (service, sb):
        service.answer("POST", PAUSE, (502, {"code": 502, "message": "edge"}), CONFLICT)
        detail(service, "paused")
        assert sb.pause() is True


def test_pausing_and_asking_share_one_time() -> None:
    """G4: the question that follows a conflict gets no time of its own."""
    with sandbox() as (service, sb):
        busy = (503, {"code": 503, "message": "later"}, {"retry-after": "1"})
        service.answer("POST", PAUSE, busy, CONFLICT)
        service.answer("GET", "/sandboxes/isandbox", busy)
        before = datetime.now(timezone.utc)
        with pytest.raises((SandboxException, RequestTimeoutException)):
            sb.pause(request_timeout=1.5)
        assert datetime.now(timezone.utc) - before < timedelta(seconds=2.1)
        assert len(service.requests("GET")) == 1


def test_connect_can_start_anew() -> None:
    with sandbox() as (service, sb):
        service.answer("POST", "/v2/sandboxes/isandbox/connect", (201, CREATED))
        assert sb.connect(on_resume="reboot") is sb
        Sandbox.connect("isandbox", on_resume="reboot", timeout=5, **options_of(sb))
        Sandbox.connect("isandbox", on_resume="restore", **options_of(sb))
        assert [asked.body for asked in service.requests("POST")[1:]] == [
            {"memory": False},
            {"memory": False, "timeout": 5},
            {},
        ]
        service.answer("POST", "/v2/sandboxes/isandbox/connect", UNRESPONSIVE)
        with pytest.raises(GuestUnresponsiveException):
            sb.connect()
        with pytest.raises(InvalidArgumentException, match="on_resume"):
            sb.connect(on_resume="retry")  # type: ignore[arg-type]


def measured(second: int, **more: Any) -> dict[str, Any]:
    return {
        "timestamp": f"2026-11-23T12:00:{second:02}Z",
        "timestampUnix": int(NOON.timestamp()) + second,
        "cpuCount": 2,
        "cpuUsedPct": 12.5,
        "memUsed": 100,
        "memTotal": 1000,
        "memCache": 10,
        "diskUsed": 7,
        "diskTotal": 70,
        **more,
    }


def test_metrics_in_both_forms() -> None:
    with sandbox() as (service, sb):
        service.answer(
            "GET", "/sandboxes/isandbox/metrics", (200, [measured(1), measured(2, timestamp=None)])
        )
        first, second = sb.get_metrics()
        assert first == SandboxMetrics(2, 12.5, 70, 7, 1000, 100, 10, NOON + timedelta(seconds=1))
        assert second.timestamp == NOON + timedelta(seconds=2)
        start, end = NOON + timedelta(seconds=0.9), NOON + timedelta(seconds=2.1)
        assert Sandbox.get_metrics("isandbox", start, end, **options_of(sb)) == [first, second]
        unix = int(NOON.timestamp())
        assert [asked.query for asked in service.requests("GET")] == [
            {},
            {"start": str(unix), "end": str(unix + 3)},
        ]
        with pytest.raises(InvalidArgumentException, match="start"):
            sb.get_metrics(start=datetime(2026, 1, 1))
        with pytest.raises(InvalidArgumentException, match="end"):
            sb.get_metrics(end=5)  # type: ignore[arg-type]
        service.answer("GET", "/sandboxes/isandbox/metrics", (200, [measured(1, cpuCount=None)]))
        with pytest.raises(SandboxException, match="cpu_count"):
            sb.get_metrics()
        with pytest.raises(SandboxNotFoundException):
            Sandbox.get_metrics("iother", **options_of(sb))


def test_forks_are_sandboxes_or_the_errors_that_tell_why_not() -> None:
    class Kind(Sandbox):
        pass

    with running() as (service, options):
        sb = Kind.create(**options)
        service.answer(
            "POST",
            "/sandboxes/isandbox/fork",
            (
                201,
                [
                    {"sandbox": {**CREATED, "sandboxID": "ifork"}},
                    {"error": {"code": 429, "message": "too many"}},
                    {},
                ],
            ),
        )
        for forks in (sb.fork(timeout=60, count=3), Kind.fork("isandbox", 60, 3, **options)):
            fork, limited, nothing = forks
            assert type(fork) is Kind
            assert fork.sandbox_id == "ifork"
            assert fork.commands.run("x").exit_code == 0
            assert isinstance(limited, RateLimitException)
            assert limited.message.startswith("too many")
            assert type(nothing) is SandboxException
        assert service.requests("POST")[1].body == {"timeout": 60, "count": 3}
        counts: list[Any] = [0, 21, "2"]
        for count in counts:
            with pytest.raises(InvalidArgumentException, match="count"):
                sb.fork(count=count)
        with pytest.raises(SandboxNotFoundException):
            Sandbox.fork("iother", **options)


def test_snapshots_are_taken_and_listed() -> None:
    with sandbox() as (service, sb):
        taken = {"snapshotID": "snap:1", "names": ["mine"]}
        service.answer("POST", "/sandboxes/isandbox/snapshots", (201, taken))
        assert sb.create_snapshot() == SnapshotInfo("snap:1", ["mine"])
        Sandbox.create_snapshot("isandbox", "mine", mode="filesystem", **options_of(sb))
        assert [asked.body for asked in service.requests("POST")[1:]] == [
            {},
            {"name": "mine", "memory": False},
        ]
        service.answer(
            "GET",
            "/snapshots",
            (200, [taken], {"x-next-token": "more"}),
            (200, [{"snapshotID": "snap:2"}]),
        )
        listing = sb.list_snapshots(limit=1)
        assert service.requests("GET") == []
        assert [snapshot.snapshot_id for snapshot in listing] == ["snap:1", "snap:2"]
        assert listing[1].names == []
        list(Sandbox.list_snapshots(name="mine", next_token="t", **options_of(sb)))
        assert [asked.query for asked in service.requests("GET")] == [
            {"sandboxID": "isandbox", "limit": "1"},
            {"sandboxID": "isandbox", "limit": "1", "nextToken": "more"},
            {"name": "mine", "nextToken": "t"},
        ]


def test_debug_mode_asks_only_for_what_it_cannot_make_up() -> None:
    """Creating, connecting, killing and the like need no control plane there; the rest goes to it."""
    with running() as (service, options):
        options["debug"] = True
        sb = Sandbox.create(**options)
        assert sb.connect() is sb
        assert sb.get_metrics() == Sandbox.get_metrics("x", **options) == []
        assert (sb.traffic_access_token, sb.sandbox_domain) == (None, "e2b.app")
        with pytest.raises(InvalidArgumentException, match="no access token"):
            sb.download_url("x", use_signature_expiration=5)
        assert "signature" not in sb.upload_url("x")
        assert service.asked == []
        for call in (sb.pause, sb.fork, sb.get_info, sb.create_snapshot, lambda: sb.update_network({})):
            with pytest.raises(SandboxNotFoundException):
                call()
        assert len(service.asked) == 5
