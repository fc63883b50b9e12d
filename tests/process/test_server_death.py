"""However the server ends, nothing of its sandboxes is left."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from sandbox_local import LocalServer
from tests.processes import command, descendants, namespaces, pids, started
from tests.raw_client import RawClient, Sandbox

SECONDS = 2.0

# A program that owns a server with sandboxes in it, and then waits for its end.
OWNER = """
import sys, time
sys.path.insert(0, {root!r})
from sandbox_local import LocalServer
from tests.processes import command, descendants, namespaces, pids, started
from tests.raw_client import RawClient
server = LocalServer()
server.start()
for _ in range(3):
    next(iter(RawClient.of(server).create().start("sleep 1000")))
print(server.pid, flush=True)
time.sleep(1000)
"""


class Remains:
    """What there is of a server and its sandboxes: noted while they live, looked for at the end."""

    def __init__(self, server_pid: int) -> None:
        self.before_mounts = mounts()
        self.pids = {server_pid, *descendants(server_pid)}
        self.started = {pid: started(pid) for pid in self.pids}
        # Numbers of namespaces are used again, so who came later is a stranger.
        self.latest = max(filter(None, self.started.values()))
        self.namespaces = {
            namespace
            for pid in self.pids
            for namespace in namespaces(pid)
            if namespace not in namespaces(os.getpid())
        }

    def left(self) -> list[str]:
        """Processes that still run, and namespaces that some process is still in."""
        running = [
            f"process {pid}: {command(pid)}"
            for pid in self.pids
            if started(pid) is not None and started(pid) == self.started[pid]
        ]
        inhabited = [
            f"process {pid} in {namespace}: {command(pid)}"
            for pid in pids()
            if (at := started(pid)) is not None and at <= self.latest
            for namespace in self.namespaces.intersection(namespaces(pid))
        ]
        return running + inhabited


def mounts() -> str:
    return Path("/proc/self/mountinfo").read_text()


def wait_until_nothing_is_left(remains: Remains, seconds: float = SECONDS) -> None:
    deadline = time.monotonic() + seconds
    while (left := remains.left()) and time.monotonic() < deadline:
        time.sleep(0.02)
    assert left == []
    assert mounts() == remains.before_mounts


@pytest.fixture
def temporary(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where the server puts temporary files, if it makes any."""
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    return tmp_path


def busy(sandboxes: list[Sandbox]) -> Iterator[threading.Thread]:
    """Threads that keep each sandbox busy until its server is gone."""
    for sandbox in sandboxes:
        # Output that never ends, a daemon in a session of its own, a command that ignores what it may ignore.
        for script in ("yes", "setsid sleep 1000 & trap '' TERM INT HUP; while :; do sleep 0.1; done"):

            def work(sandbox: Sandbox = sandbox, script: str = script) -> None:
                try:
                    for _ in sandbox.start(script):
                        pass
                except Exception:  # noqa: BLE001 - whatever the end of the server looks like from here
                    pass

            thread = threading.Thread(target=work, daemon=True)
            thread.start()
            yield thread


def wait_until_busy(sandboxes: list[Sandbox]) -> None:
    for sandbox in sandboxes:
        sandbox.run("until pgrep -x yes && pgrep -xf 'sleep 1000'; do :; done")


@pytest.mark.parametrize("end", [signal.SIGKILL, signal.SIGTERM, signal.SIGINT])
def test_the_server_leaves_nothing_when_it_ends_under_load(end: signal.Signals, temporary: Path) -> None:
    """No process, no mount, no network namespace, no file, two seconds after the end, even by SIGKILL."""
    server = LocalServer()
    with server:
        client = RawClient.of(server)
        sandboxes = [client.create() for _ in range(4)]
        threads = list(busy(sandboxes))
        wait_until_busy(sandboxes)
        remains = Remains(server.pid)
        assert len(remains.pids) > 3 * len(sandboxes)
        assert len([name for name in remains.namespaces if name.startswith("net:")]) >= len(sandboxes)
        os.kill(server.pid, end)
        wait_until_nothing_is_left(remains)
        for thread in threads:
            thread.join(10)
            assert not thread.is_alive(), "a client of a server that died hangs"
    assert list(temporary.iterdir()) == []


def test_a_frozen_sandbox_goes_with_its_server() -> None:
    with LocalServer() as server:
        client = RawClient.of(server)
        sandbox = client.create()
        next(iter(sandbox.start("sleep 1000")))
        assert client.ask("POST", sandbox.path + "/pause").status_code == 204
        remains = Remains(server.pid)
        os.kill(server.pid, signal.SIGKILL)
        wait_until_nothing_is_left(remains)


def test_a_killed_sandbox_leaves_nothing_in_a_server_that_lives() -> None:
    with LocalServer() as server:
        client = RawClient.of(server)
        client.create().__exit__()
        idle = descendants(server.pid)
        sandbox = client.create()
        threads = list(busy([sandbox]))
        wait_until_busy([sandbox])
        remains = Remains(server.pid)
        remains.pids -= {server.pid, *idle}
        remains.namespaces -= {name for pid in {server.pid, *idle} for name in namespaces(pid)}
        assert len(remains.pids) > 3
        assert client.ask("DELETE", sandbox.path).status_code == 204
        wait_until_nothing_is_left(remains, seconds=0.5)
        for thread in threads:
            thread.join(10)
            assert not thread.is_alive()


def test_when_its_owner_is_killed_the_server_goes_and_all_with_it() -> None:
    root = str(Path(__file__).resolve().parents[2])
    with subprocess.Popen(
        [sys.executable, "-c", OWNER.format(root=root)], stdout=subprocess.PIPE, text=True
    ) as owner:
        assert owner.stdout is not None
        server_pid = int(owner.stdout.readline())
        remains = Remains(server_pid)
        assert len(remains.pids) > 6
        owner.kill()
    # One second of grace for running requests, then the end of the boxes.
    wait_until_nothing_is_left(remains, seconds=SECONDS + 1)
