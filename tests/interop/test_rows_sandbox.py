"""The official package on sandboxes as a whole: their life, lists, figures, links, ports and errors."""

from __future__ import annotations

import asyncio
import base64
import datetime
import hashlib
import socket
import uuid
from collections.abc import Callable
from typing import Any

import pytest
import requests

from sandbox_local import LocalServer
from tests.interop.both import HALVES, Watched, both, e2b, got, newer

pytestmark = pytest.mark.usefixtures("server_env")

WEBSOCKET = r"""
import base64, hashlib, socket
listener = socket.create_server(("127.0.0.1", 8080))
print("ready", flush=True)
while True:
    connection = listener.accept()[0]
    head = b""
    while not head.endswith(b"\r\n\r\n"):
        head += connection.recv(1)
    lines = [line.partition(b": ") for line in head.split(b"\r\n")]
    key = [value for name, _, value in lines if name.lower() == b"sec-websocket-key"]
    if not key:
        connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nplain")
        connection.close()
        continue
    accept = base64.b64encode(hashlib.sha1(key[0] + b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11").digest())
    connection.sendall(b"HTTP/1.1 101 S\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
                       b"Sec-WebSocket-Accept: " + accept + b"\r\n\r\n")
    frame = connection.recv(2)
    size = frame[1] & 127
    mask, data = connection.recv(4), connection.recv(size)
    text = bytes(byte ^ mask[place % 4] for place, byte in enumerate(data)).upper()
    connection.sendall(bytes([0x81, len(text)]) + text)
"""


async def paged(paginator: Any) -> list[Any]:
    """Everything of a list."""
    found = []
    while paginator.has_next:
        found += await got(paginator.next_items())
    return found


@both(metadata={"purpose": "rows"}, envs={"A": "1"})
async def test_info_tells_what_was_asked_for(sandbox: Any) -> None:
    info = await got(sandbox.get_info())
    assert (info.sandbox_id, info.name, info.state) == (sandbox.sandbox_id, "base", e2b.SandboxState.RUNNING)
    assert info.metadata == {"purpose": "rows"}
    assert info.envd_version
    assert info.cpu_count >= 1
    assert info.memory_mb > 0
    assert 100 < (info.end_at - info.started_at).total_seconds() < 140
    by_id = await got(type(sandbox).get_info(sandbox.sandbox_id))
    assert by_id.sandbox_id == info.sandbox_id


@pytest.mark.parametrize("half", HALVES)
def test_addresses_are_given_as_options(
    half: str, server: LocalServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in server.env:
        monkeypatch.delenv(name)
    where = {"api_key": server.api_key, "api_url": server.url, "sandbox_url": server.url}
    kind = getattr(e2b, half)

    async def test() -> None:
        sandbox = await got(kind.create(timeout=60, **where))
        try:
            assert (await got(sandbox.commands.run("echo hi"))).stdout == "hi\n"
            assert await got((await got(kind.connect(sandbox.sandbox_id, **where))).is_running())
        finally:
            assert await got(sandbox.kill()) is True

    asyncio.run(test())


@both()
async def test_nothing_is_refused_for_the_version_of_envd(sandbox: Any) -> None:
    claimed = (await got(sandbox.get_info())).envd_version
    assert tuple(map(int, claimed.split("."))) >= (0, 6, 13)
    assert (await got(sandbox.commands.run("cat; echo end", stdin=False))).stdout == "end\n"
    watched = await Watched.start(sandbox, "/tmp", recursive=True, allow_network_mounts=True)
    await got(sandbox.files.write("/tmp/new", "x"))
    await watched.until("new", e2b.FilesystemEventType.CREATE)
    await watched.stop()


@both()
async def test_timeouts_are_set_and_only_extended_by_connect(sandbox: Any) -> None:
    async def left() -> float:
        end = (await got(sandbox.get_info())).end_at
        return float((end - datetime.datetime.now(datetime.timezone.utc)).total_seconds())

    await got(sandbox.set_timeout(1000))
    assert 980 < await left() <= 1001
    await got(type(sandbox).connect(sandbox.sandbox_id, timeout=100))
    assert await left() > 900
    await got(type(sandbox).set_timeout(sandbox.sandbox_id, 50))
    assert await left() < 51
    await got(sandbox.connect(timeout=500))
    assert await left() > 400


@both()
async def test_a_timeout_of_zero_ends_it(sandbox: Any) -> None:
    await got(sandbox.set_timeout(0))
    for _ in range(200):
        if not await got(sandbox.is_running()):
            break
        await asyncio.sleep(0.02)
    assert not await got(sandbox.is_running())


@both()
async def test_kill_is_told_once(sandbox: Any) -> None:
    kind = type(sandbox)
    assert await got(sandbox.is_running()) is True
    assert await got(kind.kill(sandbox.sandbox_id)) is True
    assert await got(kind.kill(sandbox.sandbox_id)) is False
    assert await got(sandbox.kill()) is False
    assert await got(sandbox.is_running()) is False


@both()
async def test_pause_and_connect(sandbox: Any) -> None:
    await got(sandbox.files.write("/tmp/kept", "in memory"))
    sleeping = await got(sandbox.commands.run("sleep 100", background=True, timeout=0))
    assert await got(sandbox.pause(strict=True)) is True
    assert await got(sandbox.pause()) is False
    assert (await got(sandbox.get_info())).state == e2b.SandboxState.PAUSED
    assert await got(sandbox.is_running()) is False
    with pytest.raises(e2b.SandboxNotRunningException):
        await got(sandbox.commands.run("true"))
    again = await got(type(sandbox).connect(sandbox.sandbox_id))
    assert await got(again.files.read("/tmp/kept")) == "in memory"
    assert sleeping.pid in [process.pid for process in await got(again.commands.list())]


@both(lifecycle={"on_timeout": "pause", "auto_resume": True})
async def test_a_request_resumes_what_resumes_by_itself(sandbox: Any) -> None:
    lifecycle = (await got(sandbox.get_info())).lifecycle
    assert (lifecycle["on_timeout"], lifecycle["auto_resume"]) == ("pause", True)
    await got(sandbox.pause())
    assert (await got(sandbox.commands.run("echo awake"))).stdout == "awake\n"
    assert (await got(sandbox.get_info())).state == e2b.SandboxState.RUNNING


@both(lifecycle={"on_timeout": "pause"}, timeout=1)
async def test_a_timeout_pauses_what_is_made_so(sandbox: Any) -> None:
    for _ in range(300):
        if (await got(sandbox.get_info())).state == e2b.SandboxState.PAUSED:
            break
        await asyncio.sleep(0.02)
    assert (await got(sandbox.get_info())).state == e2b.SandboxState.PAUSED
    assert await got(sandbox.kill()) is True


@both()
async def test_lists_are_filtered_and_paged(sandbox: Any) -> None:
    kind, mark = type(sandbox), uuid.uuid4().hex
    made = [await got(kind.create(metadata={"mark": mark, "odd & =%+": f"{n}"})) for n in range(3)]
    try:
        await got(made[0].pause())
        names = [one.sandbox_id for one in made]

        async def ids(limit: int | None = None, order: str | None = None, **query: Any) -> list[str]:
            wanted = e2b.SandboxQuery(**{"metadata": {"mark": mark}, **query})
            return [one.sandbox_id for one in await paged(kind.list(query=wanted, limit=limit, order=order))]

        assert sorted(await ids()) == sorted(names)
        assert sorted(await ids(limit=1)) == sorted(names)
        assert await ids(order="asc") == (await ids(order="desc"))[::-1]
        assert await ids(state=[e2b.SandboxState.PAUSED]) == names[:1]
        assert sorted(await ids(state=[e2b.SandboxState.RUNNING])) == sorted(names[1:])
        assert await ids(metadata={"mark": mark, "odd & =%+": "2"}) == names[2:]
        assert await ids(template="no-such-template") == []
        assert await ids(started_after=datetime.datetime(2199, 1, 1, tzinfo=datetime.timezone.utc)) == []
        with pytest.raises(e2b.SandboxException):
            await paged(kind.list(next_token="garbage"))
    finally:
        for one in made:
            await got(one.kill())


@both()
async def test_metrics_are_measured(sandbox: Any) -> None:
    [metric] = await got(sandbox.get_metrics())
    assert metric.cpu_count >= 1
    assert 0 <= metric.cpu_used_pct <= 100 * metric.cpu_count
    assert 0 < metric.mem_used < metric.mem_total
    assert 0 < metric.disk_used < metric.disk_total
    later = datetime.datetime.now() + datetime.timedelta(hours=1)
    assert await got(sandbox.get_metrics(start=later)) == []


@both()
async def test_signed_links_are_fetched(sandbox: Any) -> None:
    where = {"E2b-Sandbox-Id": sandbox.sandbox_id, "E2b-Sandbox-Port": "49983"}
    upload = sandbox.upload_url("a file.txt", use_signature_expiration=60)
    assert requests.post(upload, headers=where, files={"file": b"sent"}, timeout=30).ok
    download = sandbox.download_url("a file.txt", user="user", use_signature_expiration=60)
    assert requests.get(download, headers=where, timeout=30).text == "sent"
    assert requests.get(sandbox.download_url("a file.txt"), headers=where, timeout=30).text == "sent"
    for wrong in (download.replace("v1_", "v1_x"), download.replace("a%20file", "another"), upload):
        assert requests.get(wrong, headers=where, timeout=30).status_code == 401
    late = sandbox.download_url("a file.txt", use_signature_expiration=-10)
    assert "expired" in requests.get(late, headers=where, timeout=30).json()["message"]


@both()
async def test_ports_are_reached_by_host(sandbox: Any) -> None:
    await got(sandbox.files.write("server.py", WEBSOCKET))
    serving = await got(
        sandbox.commands.run("python3 server.py > out 2>&1 & until grep -q ready out; do sleep 0.05; done")
    )
    assert serving.exit_code == 0
    host = sandbox.get_host(8080)
    name, _, port = host.rpartition(":")
    assert name == f"8080-{sandbox.sandbox_id}.localhost"
    url = f"http://127.0.0.1:{port}"
    assert requests.get(url, headers={"Host": host}, timeout=30).text == "plain"
    key = base64.b64encode(b"0123456789abcdef")
    with (
        socket.create_connection(("127.0.0.1", int(port)), 30) as connection,
        connection.makefile("rb") as stream,
    ):
        connection.sendall(
            b"GET /ws HTTP/1.1\r\nHost: %b\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
            b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: %b\r\n\r\n" % (host.encode(), key)
        )
        head = b"".join(iter(stream.readline, b"\r\n"))
        proof = base64.b64encode(hashlib.sha1(key + b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11").digest())
        assert proof in head
        connection.sendall(bytes([0x81, 0x82, 0, 0, 0, 0]) + b"hi")
        assert stream.read(4) == bytes([0x81, 2]) + b"HI"


@both(network={"allow_public_traffic": False})
async def test_closed_ports_want_the_token(sandbox: Any) -> None:
    where = {"E2b-Sandbox-Id": sandbox.sandbox_id, "E2b-Sandbox-Port": "8080"}
    url = f"http://127.0.0.1:{sandbox.get_host(1).rpartition(':')[2]}"
    assert requests.get(url, headers=where, timeout=30).status_code == 403
    token = {"e2b-traffic-access-token": sandbox.traffic_access_token}
    assert requests.get(url, headers={**where, **token}, timeout=30).status_code == 502
    assert (await got(sandbox.commands.run("echo open"))).stdout == "open\n"


@both()
async def test_a_key_or_a_template_that_is_wrong_is_told(sandbox: Any) -> None:
    kind = type(sandbox)
    with pytest.raises(e2b.AuthenticationException):
        await got(kind.create(api_key="e2b_" + "0" * 40))
    with pytest.raises(e2b.SandboxException, match="no-such-template"):
        await got(kind.create("no-such-template"))
    with pytest.raises(e2b.SandboxNotFoundException):
        await got(kind.connect("inosuchsandbox"))
    with pytest.raises(e2b.SandboxNotFoundException):
        await got(kind.get_info("inosuchsandbox"))
    with pytest.raises(e2b.SandboxNotFoundException):
        await got(kind.set_timeout("inosuchsandbox", 60))
    assert await got(kind.kill("inosuchsandbox")) is False


@both()
async def test_calls_to_what_has_ended_say_so(sandbox: Any) -> None:
    await got(sandbox.kill())
    commands, files = sandbox.commands, sandbox.files
    calls: list[tuple[Callable[..., Any], tuple[str, ...]]] = [
        (commands.run, ("true",)),
        (commands.list, ()),
        (files.read, ("/etc/hosts",)),
        (files.write, ("x", "y")),
        (files.list, ("/",)),
    ]
    for call, arguments in calls:
        with pytest.raises(e2b.SandboxNotRunningException):
            await got(call(*arguments))
    with pytest.raises(e2b.SandboxNotFoundException):
        await got(sandbox.pause())


@both()
async def test_what_one_machine_cannot_do_is_said(sandbox: Any) -> None:
    kind = type(sandbox)
    volume = e2b.AsyncVolume if kind is e2b.AsyncSandbox else e2b.Volume
    calls: list[tuple[Callable[[], Any], str]] = [
        (lambda: sandbox.pause(mode="filesystem"), "memory"),
        (lambda: kind.connect(sandbox.sandbox_id, on_resume="reboot"), "memory"),
        (sandbox.fork, "copy of its memory"),
        (sandbox.create_snapshot, "snapshots"),
        (lambda: paged(kind.list_snapshots()), "snapshots"),
        (lambda: kind.create(mcp={"browserbase": {}}), "MCP gateway"),
        (lambda: kind.create(volume_mounts={"/v": "volume"}), "no volumes"),
        (lambda: kind.create(network={"allow_out": ["10.0.0.0/8"]}), "serve --internet"),
        (lambda: sandbox.update_network({"deny_out": ["0.0.0.0/0"]}), "serve --internet"),
        (lambda: volume.create("volume"), "volumes"),
    ]
    for call, reason in calls:
        with pytest.raises((e2b.SandboxException, e2b.VolumeException), match=reason) as refused:
            await got(call())
        assert "501" in str(refused.value) or refused.value.status_code == 501
    assert await got(kind.delete_snapshot("no-such-snapshot")) is False
    assert await got(sandbox.is_running())


@newer
@pytest.mark.parametrize("half", HALVES)
def test_an_idempotency_key_makes_one_sandbox(half: str) -> None:
    """G21: one key, one sandbox; other parameters under the same key are an error."""
    kind, key = getattr(e2b, half), uuid.uuid4().hex

    async def test() -> None:
        one = await got(kind.create(timeout=60, idempotency_key=key))
        other = await got(kind.create(timeout=60, idempotency_key=key))
        assert one.sandbox_id == other.sandbox_id
        with pytest.raises(e2b.SandboxException, match="Idempotency-Key"):
            await got(kind.create(timeout=61, idempotency_key=key))
        assert await got(one.kill()) is True

    asyncio.run(test())


@pytest.mark.parametrize("half", HALVES)
def test_an_unsecured_sandbox_has_plain_links_and_needs_no_token(half: str, server: LocalServer) -> None:
    """The package makes secured ones alone; one made by the old route is open to who reaches it."""
    made = requests.post(
        server.url + "/sandboxes",
        json={"templateID": "base", "timeout": 60},
        headers={"X-API-Key": server.api_key},
        timeout=30,
    ).json()

    async def test() -> None:
        sandbox = await got(getattr(e2b, half).connect(made["sandboxID"]))
        try:
            await got(sandbox.files.write("x", "open"))
            assert "signature" not in sandbox.download_url("x")
            where = {"E2b-Sandbox-Id": sandbox.sandbox_id, "E2b-Sandbox-Port": "49983"}
            assert requests.get(sandbox.download_url("x"), headers=where, timeout=30).text == "open"
            with pytest.raises(e2b.InvalidArgumentException):
                sandbox.download_url("x", use_signature_expiration=60)
        finally:
            await got(sandbox.kill())

    asyncio.run(test())
