"""Real sandboxes that are paused, resumed and measured, and what becomes of them when their time is over."""

from __future__ import annotations

import time
from collections.abc import Callable
from datetime import datetime, timedelta, timezone
from functools import partial

import pytest
import requests

from sandbox_sync import (
    ConflictException,
    InvalidArgumentException,
    Sandbox,
    SandboxException,
    SandboxNotFoundException,
    SandboxNotRunningException,
    SandboxQuery,
    SandboxState,
)

UNKNOWN = "i0000000000000000000"


def until(condition: Callable[[], object], seconds: float = 20) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it did not come to be"
        time.sleep(0.02)


def is_gone(sandbox: Sandbox) -> bool:
    return not sandbox.is_running()


def test_a_paused_sandbox_stands_still_and_goes_on(sandbox: Sandbox) -> None:
    sandbox.files.write("count", "")
    counting = sandbox.commands.run("while sleep 0.02; do echo x >> count; done", background=True)

    def count() -> int:
        return len(sandbox.files.read("count"))

    until(lambda: count() > 3)
    assert sandbox.pause() is True
    assert sandbox.pause() is False
    assert Sandbox.pause(sandbox.sandbox_id) is False
    info = sandbox.get_info()
    assert info.state is SandboxState.PAUSED
    assert info.end_at <= datetime.now(timezone.utc) + timedelta(seconds=1)
    assert sandbox.is_running() is False
    assert sandbox.get_metrics() == []
    with pytest.raises(SandboxNotRunningException):
        sandbox.commands.run("true")
    with pytest.raises(ConflictException):
        sandbox.set_timeout(60)
    assert sandbox.connect(timeout=120) is sandbox
    assert sandbox.get_info().state is SandboxState.RUNNING
    assert sandbox.is_running() is True
    assert counting.pid in [process.pid for process in sandbox.commands.list()]
    before = count()
    until(lambda: count() > before)


@pytest.mark.documented("Sandbox.connect")
def test_connecting_by_id_resumes(sandbox: Sandbox) -> None:
    sandbox.files.write("/tmp/kept", "in memory and on disk")
    assert Sandbox.pause(sandbox.sandbox_id) is True
    again = Sandbox.connect(sandbox.sandbox_id, timeout=500)
    assert again.files.read("/tmp/kept") == "in memory and on disk"
    left = again.get_info().end_at - datetime.now(timezone.utc)
    assert timedelta(seconds=480) < left <= timedelta(seconds=501)
    assert sandbox.commands.run("echo the first handle works, too").exit_code == 0


def test_a_paused_sandbox_can_be_killed(sandbox: Sandbox) -> None:
    assert sandbox.pause()
    assert sandbox.kill() is True
    assert sandbox.kill() is False
    with pytest.raises(SandboxNotFoundException):
        sandbox.pause()
    with pytest.raises(SandboxNotFoundException):
        sandbox.connect()


@pytest.mark.usefixtures("server_env", "transport")
def test_pausing_needs_a_sandbox() -> None:
    for call in (Sandbox.pause, Sandbox.get_metrics, Sandbox.connect):
        with pytest.raises(SandboxNotFoundException):
            call(UNKNOWN)


@pytest.mark.usefixtures("server_env", "transport")
def test_the_end_of_a_life_can_be_a_pause() -> None:
    with Sandbox.create(lifecycle={"on_timeout": "pause"}) as sandbox:
        assert sandbox.get_info().lifecycle == {"on_timeout": "pause", "auto_resume": False}
        sandbox.files.write("note", "kept")
        sandbox.set_timeout(0)
        until(lambda: sandbox.get_info().state is SandboxState.PAUSED)
        assert sandbox.is_running() is False
        with pytest.raises(SandboxNotRunningException):
            sandbox.files.read("note")
        assert sandbox.connect().files.read("note") == "kept"


@pytest.mark.usefixtures("server_env", "transport")
def test_a_request_can_resume() -> None:
    with Sandbox.create(lifecycle={"on_timeout": {"action": "pause"}, "auto_resume": True}) as sandbox:
        assert sandbox.get_info().lifecycle == {"on_timeout": "pause", "auto_resume": True}
        sandbox.pause()
        assert sandbox.commands.run("echo awake").stdout == "awake\n"
        assert sandbox.get_info().state is SandboxState.RUNNING


@pytest.mark.usefixtures("server_env", "transport")
def test_the_end_of_a_life_is_death_unless_asked_otherwise() -> None:
    for sandbox in [Sandbox.create(), Sandbox.create(lifecycle={"on_timeout": "kill"})]:
        assert sandbox.get_info().lifecycle == {"on_timeout": "kill", "auto_resume": False}
        sandbox.set_timeout(0)
        until(partial(is_gone, sandbox))
        with pytest.raises(SandboxNotFoundException):
            sandbox.get_info()


def test_metrics_tell_what_is_used(sandbox: Sandbox) -> None:
    before = datetime.now(timezone.utc)
    (idle,) = sandbox.get_metrics()
    assert abs(idle.timestamp - before) < timedelta(seconds=5)
    assert idle.cpu_count == sandbox.get_info().cpu_count
    assert 0 < idle.mem_used < idle.mem_total
    assert 0 < idle.disk_used < idle.disk_total
    sandbox.files.write("big", b"\0" * (8 << 20))
    (later,) = Sandbox.get_metrics(sandbox.sandbox_id)
    assert later.disk_used - idle.disk_used >= 8 << 20
    hour = timedelta(hours=1)
    assert len(sandbox.get_metrics(before - hour, before + hour)) == 1
    assert sandbox.get_metrics(end=before - hour) == []
    assert sandbox.get_metrics(start=before + hour) == []
    with pytest.raises(InvalidArgumentException, match="time zone"):
        sandbox.get_metrics(start=datetime(2026, 1, 1))


def test_busy_processors_show(sandbox: Sandbox) -> None:
    sandbox.get_metrics()
    busy = sandbox.commands.run("while :; do :; done", background=True)
    until(lambda: any(metric.cpu_used_pct > 20 for metric in sandbox.get_metrics()), 30)
    busy.kill()


@pytest.mark.parametrize(
    ("call", "reason"),
    [
        (lambda sandbox: sandbox.fork(), "copy of its memory"),
        (lambda sandbox: sandbox.create_snapshot("name"), "snapshots"),
        (lambda sandbox: list(sandbox.list_snapshots()), "snapshots"),
        (lambda sandbox: list(Sandbox.list_snapshots()), "snapshots"),
        (lambda sandbox: sandbox.update_network({"allow_out": ["1.1.1.1"]}), "network"),
        (lambda sandbox: sandbox.pause(mode="filesystem"), "memory"),
        (lambda sandbox: sandbox.connect(on_resume="reboot"), "memory"),
        (lambda sandbox: Sandbox.create(network={"deny_out": ["0.0.0.0/0"]}), "no network"),
        (
            lambda sandbox: Sandbox.create(
                lifecycle={"on_timeout": {"action": "pause", "mode": "filesystem"}}
            ),
            "memory",
        ),
    ],
)
def test_what_one_machine_cannot_do_is_told_with_its_reason(
    sandbox: Sandbox, call: Callable[[Sandbox], object], reason: str
) -> None:
    with pytest.raises(SandboxException, match=reason) as caught:
        call(sandbox)
    assert caught.value.status == 501
    assert type(caught.value) is SandboxException
    assert sandbox.is_running()


@pytest.mark.usefixtures("server_env", "transport")
def test_ports_can_be_closed_to_the_public() -> None:
    with Sandbox.create(network={"allow_public_traffic": False}) as sandbox:
        assert sandbox.get_info().network == {"allow_public_traffic": False}
        sandbox.files.write("site/index.html", "it works")
        sandbox.commands.run("python3 -m http.server 8080 --directory site", background=True)
        url, host = sandbox.connection_config.api_url, sandbox.get_host(8080)
        with requests.Session() as session:
            session.trust_env = False
            token = {"e2b-traffic-access-token": sandbox.traffic_access_token or ""}
            assert session.get(url, headers={"Host": host}, timeout=20).status_code == 403
            served = {"Host": host, **token}
            until(lambda: session.get(url, headers=served, timeout=20).text == "it works")


def test_the_host_of_a_port_leads_into_the_sandbox(sandbox: Sandbox) -> None:
    sandbox.files.write("site/index.html", "it works")
    serving = sandbox.commands.run("python3 -m http.server 8080 --directory site", background=True)
    host = sandbox.get_host(8080)
    assert host == f"8080-{sandbox.sandbox_id}.{sandbox.sandbox_domain}"
    assert sandbox.traffic_access_token is None
    with requests.Session() as session:
        session.trust_env = False
        url = sandbox.connection_config.api_url
        until(lambda: session.get(url, headers={"Host": host}, timeout=20).text == "it works")
    serving.kill()
    for port in (0, 65536, -1):
        with pytest.raises(InvalidArgumentException):
            sandbox.get_host(port)


@pytest.mark.usefixtures("server_env", "transport")
def test_killing_what_was_paused_frees_its_place_in_lists() -> None:
    with Sandbox.create(metadata={"pause": "list"}) as sandbox:
        query = SandboxQuery(metadata={"pause": "list"}, state=[SandboxState.PAUSED])
        sandbox.pause()
        assert sandbox.sandbox_id in [info.sandbox_id for info in Sandbox.list(query=query)]
    assert sandbox.sandbox_id not in [info.sandbox_id for info in Sandbox.list(query=query)]
