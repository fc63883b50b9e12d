"""The doors of the server: its command line, and LocalServer."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from statistics import median
from typing import Any

import pytest
import requests

from sandbox_local import IsolationError, LocalServer, ServerError
from sandbox_local.server import EXIT_NO_ISOLATION
from sandbox_sync import RateLimitException, Sandbox
from tests.processes import idle_time
from tests.raw_client import RawClient

SERVE = ["-m", "sandbox_local", "serve"]

# Run Python in a user namespace in which no other can be made.
WITHOUT_NAMESPACES = """
import ctypes, os, sys
uid, gid = os.geteuid(), os.getegid()
assert ctypes.CDLL(None).unshare(0x10000000) == 0, "no user namespace to take them away in"
for name, text in (("setgroups", "deny"), ("uid_map", f"0 {uid} 1"), ("gid_map", f"0 {gid} 1")):
    with open(f"/proc/self/{name}", "w") as file:
        file.write(text)
with open("/proc/sys/user/max_user_namespaces", "w") as file:
    file.write("0")
os.execv(sys.executable, [sys.executable, *sys.argv[1:]])
"""


@contextmanager
def serving(*options: str, **kinds: object) -> Iterator[tuple[subprocess.Popen[str], dict[str, str]]]:
    """A `serve` process and the variables that it printed."""
    process = subprocess.Popen(
        [sys.executable, *SERVE, "--print-env", *options],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        **kinds,  # type: ignore[call-overload]
    )
    try:
        assert process.stdout is not None
        lines = [process.stdout.readline() for _ in range(3)]
        yield process, dict(line.rstrip("\n").split("=", 1) for line in lines)
    finally:
        process.kill()
        process.communicate()


def run_serve(*options: str, python: Sequence[str] = (sys.executable,)) -> subprocess.CompletedProcess[str]:
    """A `serve` process that ends by itself."""
    return subprocess.run(
        [*python, *SERVE, *options], capture_output=True, text=True, timeout=30, check=False
    )


def is_healthy(url: str) -> bool:
    try:
        return requests.get(url + "/health", timeout=10).status_code == 204
    except requests.ConnectionError:
        return False


def test_it_prints_what_a_shell_needs_and_nothing_else() -> None:
    with serving() as (process, env):
        assert list(env) == ["E2B_API_URL", "E2B_SANDBOX_URL", "E2B_API_KEY"]
        client = RawClient(env["E2B_API_URL"], env["E2B_API_KEY"])
        with client.create() as sandbox:
            assert sandbox.run("echo hello") == "hello\n"
        process.send_signal(signal.SIGTERM)
        output, errors = process.communicate(timeout=10)
        assert (output, errors, process.returncode) == ("", "", 0)


@pytest.mark.parametrize("signum", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
def test_a_signal_ends_it_with_success(signum: signal.Signals) -> None:
    with serving() as (process, env):
        RawClient(env["E2B_API_URL"], env["E2B_API_KEY"]).create()
        process.send_signal(signum)
        assert process.wait(10) == 0
        assert not is_healthy(env["E2B_API_URL"])


def test_a_server_that_cannot_come_to_an_end_ends_all_the_same() -> None:
    script = """
import asyncio, sys
from sandbox_local import __main__, serve
async def stuck(config, on_ready):
    while True:
        try:
            print("ready", flush=True)
            await asyncio.sleep(100)
        except asyncio.CancelledError:
            pass
serve._serve, serve._STOP_SECONDS = stuck, 0.2
__main__.main(["serve"])
"""
    with subprocess.Popen(
        [sys.executable, "-c", script], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        process.terminate()
        _, errors = process.communicate(timeout=10)
    assert process.returncode == 1
    assert "not everything ended" in errors


def test_each_server_has_a_key_of_its_own_whatever_the_environment_says(tmp_path: Path) -> None:
    file = tmp_path / "key"
    file.write_text("given-key-0123456789\n")
    environment = {**os.environ, "E2B_API_KEY": "e2b_" + "f" * 40}
    with serving(env=environment) as (_, one), serving(env=environment) as (_, other):
        assert len({one["E2B_API_KEY"], other["E2B_API_KEY"], environment["E2B_API_KEY"]}) == 3
        assert RawClient(one["E2B_API_URL"], other["E2B_API_KEY"]).ask("GET", "/sandboxes").status_code == 401
    with serving("--api-key-file", str(file)) as (_, given):
        assert given["E2B_API_KEY"] == "given-key-0123456789"
        assert RawClient(given["E2B_API_URL"], "given-key-0123456789").ask("GET", "/sandboxes").ok


@pytest.mark.parametrize("content", ["", "short", "two words 0123456789", "line\nline0123456789012"])
def test_a_file_that_holds_no_key_is_refused(content: str, tmp_path: Path) -> None:
    file = tmp_path / "key"
    file.write_text(content)
    run = run_serve("--api-key-file", str(file))
    assert run.returncode == 2
    assert str(file) in run.stderr


def test_listening_beyond_this_machine_is_warned_of() -> None:
    with serving("--host", "0.0.0.0") as (process, env):
        assert env["E2B_API_URL"].startswith("http://127.0.0.1:")
        assert is_healthy(env["E2B_API_URL"])
        process.terminate()
        _, errors = process.communicate(timeout=10)
        assert "other machines can reach this server" in errors
        assert env["E2B_API_KEY"] not in errors


def test_a_port_that_is_taken_is_told_without_a_traceback() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        run = run_serve("--port", port)
    assert run.returncode == 1
    assert port in run.stderr
    assert "Traceback" not in run.stderr


def test_where_namespaces_are_refused_it_says_so_and_runs_nothing() -> None:
    """G27: one error that names the cause and the remedy, and never an unisolated sandbox."""
    run = run_serve("--print-env", python=[sys.executable, "-c", WITHOUT_NAMESPACES])
    assert run.returncode == EXIT_NO_ISOLATION, run.stderr
    assert run.stdout == ""
    assert "namespaces" in run.stderr
    assert "Traceback" not in run.stderr


def test_local_server_raises_what_the_server_said(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """G27: the same through LocalServer, as an error of its own kind."""
    python = tmp_path / "python"
    python.write_text(f"#!{sys.executable}\n{WITHOUT_NAMESPACES}")
    python.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(python))
    with pytest.raises(IsolationError, match="namespaces"):
        LocalServer().start()


def test_the_state_file_tells_where_the_server_is_and_goes_with_it(tmp_path: Path) -> None:
    path = tmp_path / "server.json"
    with serving("--state-file", str(path)) as (process, env):
        state = json.loads(path.read_text())
        assert (state["url"], state["api_key"]) == (env["E2B_API_URL"], env["E2B_API_KEY"])
        assert state["pid"] == process.pid
        assert state["version"]
        assert path.stat().st_mode & 0o777 == 0o600
        second = run_serve("--state-file", str(path))
        assert second.returncode == 1
        assert str(path) in second.stderr
        assert json.loads(path.read_text()) == state
        process.terminate()
        assert process.wait(10) == 0
    assert list(tmp_path.iterdir()) == []


def test_the_state_file_of_a_killed_server_does_not_stop_the_next(tmp_path: Path) -> None:
    path = tmp_path / "server.json"
    with serving("--state-file", str(path)) as (process, _):
        process.kill()
        process.wait(10)
        assert path.exists()
    with serving("--state-file", str(path)) as (process, env):
        assert json.loads(path.read_text())["url"] == env["E2B_API_URL"]


def test_an_idle_server_ends_by_itself_and_one_with_a_sandbox_does_not(tmp_path: Path) -> None:
    path = tmp_path / "server.json"
    with serving("--state-file", str(path), "--idle-exit", "1") as (process, env):
        sandbox = RawClient(env["E2B_API_URL"], env["E2B_API_KEY"]).create()
        with pytest.raises(subprocess.TimeoutExpired):
            process.wait(2.5)
        sandbox.__exit__()
        ended = time.monotonic()
        assert process.wait(10) == 0
        assert time.monotonic() - ended > 0.9
        assert not path.exists()


def test_requests_keep_an_idle_server_up() -> None:
    with serving("--idle-exit", "1") as (process, env):
        until = time.monotonic() + 2.5
        while time.monotonic() < until:
            assert is_healthy(env["E2B_API_URL"])
            time.sleep(0.2)
        assert process.wait(10) == 0


def test_the_end_of_the_lifeline_ends_it() -> None:
    read_end, write_end = os.pipe()
    with serving("--lifeline", str(read_end), pass_fds=[read_end]) as (process, env):
        os.close(read_end)
        os.write(write_end, b"still here")
        assert is_healthy(env["E2B_API_URL"])
        os.close(write_end)
        assert process.wait(10) == 0


def test_local_server_is_a_context_with_a_url_a_key_and_an_environment() -> None:
    server = LocalServer()
    with pytest.raises(RuntimeError, match="does not run"):
        server.url  # noqa: B018
    with server as entered:
        assert entered is server
        assert server.env == {
            "E2B_API_URL": server.url,
            "E2B_SANDBOX_URL": server.url,
            "E2B_API_KEY": server.api_key,
        }
        assert server.api_key not in repr(server)
        pid = server.pid
        server.start()
        assert server.pid == pid, "starting what runs does nothing"
        assert is_healthy(server.url)
    assert not os.path.exists(f"/proc/{pid}")
    server.stop()
    with server:
        assert server.pid != pid, "it may be started again"


def test_local_server_needs_no_thread_and_leaves_no_descriptor() -> None:
    before = len(os.listdir("/proc/self/fd")), len(os.listdir("/proc/self/task"))
    for _ in range(2):
        with LocalServer():
            assert len(os.listdir("/proc/self/task")) == before[1]
    with socket.create_server(("127.0.0.1", 0)) as taken, pytest.raises(ServerError, match="can't listen"):
        LocalServer(port=taken.getsockname()[1]).start()
    assert (len(os.listdir("/proc/self/fd")), len(os.listdir("/proc/self/task"))) == before


def test_a_forked_child_uses_the_server_and_does_not_stop_it() -> None:
    with LocalServer() as server:
        child = os.fork()
        if child == 0:
            server.stop()
            os._exit(0 if is_healthy(server.url) else 1)
        assert os.waitpid(child, 0)[1] == 0
        assert is_healthy(server.url)


def test_a_child_that_outlives_its_owner_does_not_keep_the_server() -> None:
    """The owner is killed while a forked child of it, which inherited every descriptor, goes on."""
    read_end, write_end = os.pipe()
    owner = os.fork()
    if owner == 0:
        server = LocalServer()
        server.start()
        if os.fork() == 0:
            time.sleep(30)
            os._exit(0)
        os.write(write_end, f"{server.pid} {server.url}\n".encode())
        time.sleep(30)
        os._exit(0)
    os.close(write_end)
    with os.fdopen(read_end) as report:
        pid, url = report.readline().split()
    os.kill(owner, signal.SIGKILL)
    os.waitpid(owner, 0)
    deadline = time.monotonic() + 10
    while is_healthy(url) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not is_healthy(url), f"server {pid} outlives its owner"


def test_a_sandbox_is_there_soon_after_the_server() -> None:
    """G58: the first creation waits for nothing but its work."""
    idle: list[float] = []
    while len(idle) < 3 or median(idle) >= 0.03:
        assert len(idle) < 15, idle  # the disk takes its time
        with LocalServer() as server:
            idle.append(idle_time(RawClient.of(server).create, server.pid)[0])


def test_stop_from_many_threads_at_once_is_one_stop() -> None:
    server = LocalServer()
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda _: server.start(), range(8)))
        pid = server.pid
        list(pool.map(lambda _: server.stop(), range(8)))
    assert not os.path.exists(f"/proc/{pid}")


def test_as_many_sandboxes_live_as_are_allowed() -> None:
    with LocalServer(sandboxes=2) as server:
        options: Any = {"api_url": server.url, "sandbox_url": server.url, "api_key": server.api_key}
        first = Sandbox.create(**options)
        Sandbox.create(**options)
        with pytest.raises(RateLimitException, match="2 sandboxes live, as many as this server allows"):
            Sandbox.create(**options)
        first.kill()
        assert Sandbox.create(**options).is_running()


def test_a_bound_that_no_server_can_have_is_refused() -> None:
    command = [sys.executable, "-m", "sandbox_local", "serve", "--sandboxes", "0"]
    ended = subprocess.run(command, capture_output=True, text=True, timeout=30)
    assert ended.returncode == 2
    assert "--sandboxes has to be 1 or more" in ended.stderr
