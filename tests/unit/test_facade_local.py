"""Joining and starting this user's local server, with small programs in the server's place."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import textwrap
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from sandbox_sync import local
from sandbox_sync.deadlines import Deadline
from sandbox_sync.errors import SandboxException

# Does what the real server does with its state file and key, and writes down that it was started.
SERVER = """
import http.server, json, os, sys, threading
options = dict(zip(sys.argv[2::2], sys.argv[3::2]))
state_file = options["--state-file"]

class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        stop = os.path.exists(os.path.join(os.path.dirname(state_file), "stop"))
        good = self.headers["X-API-Key"] == "secret" and self.path.startswith("/v2/sandboxes")
        self.send_response(200 if good else 401)
        self.end_headers()
        self.wfile.write(b"[]")
        if stop:
            threading.Thread(target=self.server.shutdown).start()

    def log_message(self, *arguments):
        pass

server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
with open(os.path.join(os.path.dirname(state_file), "starts"), "a") as starts:
    starts.write(json.dumps({"environ": dict(os.environ), "pid": os.getpid(), "sid": os.getsid(0),
                             "arguments": sys.argv,
                             "open": [os.path.realpath(f"/proc/self/fd/{fd}") for fd in range(64)]}) + "\\n")
state = {"url": f"http://127.0.0.1:{server.server_port}", "api_key": "secret", "pid": 1, "version": "0"}
with open(state_file + ".new", "w") as file:
    json.dump(state, file)
os.rename(state_file + ".new", state_file)
threading.Timer(60, os._exit, [0]).start()
server.serve_forever()
os.unlink(state_file)
os._exit(0)
"""


class Machine:
    """A runtime directory and a `sandbox_local` of our own making."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.directory = root / "run" / "sandbox-sync"

    def serve(self, program: str) -> None:
        package = self.root / "packages" / "sandbox_local"
        package.mkdir(parents=True, exist_ok=True)
        (package / "__init__.py").touch()
        (package / "__main__.py").write_text(program)

    def starts(self) -> list[dict[str, object]]:
        try:
            return [json.loads(line) for line in (self.directory / "starts").read_text().splitlines()]
        except OSError:
            return []

    def stop(self) -> None:
        """End the servers that were started, and see them gone."""
        for start in self.starts():
            pid = int(str(start["pid"]))
            try:
                os.kill(pid, 9)
            except ProcessLookupError:
                continue
            while local._is_alive(pid):
                time.sleep(0.01)


@pytest.fixture
def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Machine]:
    machine = Machine(tmp_path)
    (tmp_path / "run").mkdir()
    machine.serve(SERVER)
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path / "run"))
    monkeypatch.setenv("PYTHONPATH", str(tmp_path / "packages"))
    monkeypatch.delenv("SANDBOX_LOCAL_INTERNET", raising=False)
    yield machine
    machine.stop()


def test_a_server_is_started_once_and_then_joined(machine: Machine) -> None:
    first = local.endpoint()
    assert first.api_key == "secret"
    assert local.endpoint() == first
    assert len(machine.starts()) == 1
    assert machine.directory.stat().st_mode & 0o777 == 0o700


def test_who_wants_a_network_has_a_server_apart_from_that_of_who_does_not(
    machine: Machine, monkeypatch: pytest.MonkeyPatch
) -> None:
    without = local.endpoint()
    assert "--internet" not in str(machine.starts()[0]["arguments"])
    monkeypatch.setenv("SANDBOX_LOCAL_INTERNET", "1")
    other = Machine(machine.root)
    other.directory = machine.root / "run" / "sandbox-sync-internet"
    try:
        assert local.endpoint() == local.endpoint() != without
        (start,) = other.starts()
        assert "--internet" in str(start["arguments"])
    finally:
        other.stop()
    monkeypatch.setenv("SANDBOX_LOCAL_INTERNET", "0")
    assert local.endpoint() == without
    monkeypatch.setenv("SANDBOX_LOCAL_INTERNET", "yes")
    with pytest.raises(SandboxException, match=r"SANDBOX_LOCAL_INTERNET is 'yes'; it takes 1"):
        local.endpoint()


def test_the_key_is_in_no_repr() -> None:
    assert "secret" not in repr(local.LocalEndpoint("http://127.0.0.1:1", "secret"))


def test_the_server_gets_no_secrets_and_no_descriptors(
    machine: Machine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("E2B_API_KEY", "mine")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "mine too")
    read, write = os.pipe()
    os.set_inheritable(write, True)
    pipe = os.path.realpath(f"/proc/self/fd/{write}")
    local.endpoint()
    os.close(read)
    os.close(write)
    (start,) = machine.starts()
    environ = start["environ"]
    assert isinstance(environ, dict)
    assert not {"E2B_API_KEY", "AWS_SECRET_ACCESS_KEY"} & environ.keys()
    assert environ["PATH"] == os.environ["PATH"]
    assert start["sid"] != os.getsid(0)
    open_files = start["open"]
    assert isinstance(open_files, list)
    assert pipe.rpartition("/")[2] not in "".join(open_files)


def test_the_server_is_nobodys_child_here(machine: Machine) -> None:
    local.endpoint()
    with pytest.raises(ChildProcessError):
        os.waitpid(int(str(machine.starts()[0]["pid"])), os.WNOHANG)


def test_of_many_threads_one_starts_it(machine: Machine) -> None:
    with ThreadPoolExecutor(16) as pool:
        found = list(pool.map(lambda _: local.endpoint(), range(16)))
    assert len(set(found)) == 1
    assert len(machine.starts()) == 1


def test_of_many_processes_one_starts_it(machine: Machine) -> None:
    code = "from sandbox_sync import local; print(local.endpoint().url)"
    programs = [
        subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True) for _ in range(6)
    ]
    urls = {program.communicate(timeout=60)[0] for program in programs}
    assert len(urls) == 1
    assert urls != {""}
    assert len(machine.starts()) == 1


def test_a_fork_while_the_lock_is_held_does_not_keep_it(machine: Machine) -> None:
    machine.directory.mkdir(mode=0o700)
    with local._lock(machine.directory, Deadline.after(10)):
        child = os.fork()
        if not child:
            time.sleep(30)
            os._exit(0)
    try:
        with local._lock(machine.directory, Deadline.after(1)):
            pass
    finally:
        os.kill(child, 9)
        os.waitpid(child, 0)


def test_a_fork_of_a_program_that_died_with_the_lock_does_not_keep_it(machine: Machine) -> None:
    machine.directory.mkdir(mode=0o700)
    reading, writing = os.pipe()
    holder = os.fork()
    if not holder:
        with local._lock(machine.directory, Deadline.after(10)):
            child = os.fork()
            if child:
                os.write(writing, str(child).encode())
            else:
                os.close(writing)
                time.sleep(30)
            os._exit(0)
    os.close(writing)
    os.waitpid(holder, 0)
    child = int(os.read(reading, 20))
    os.close(reading)
    try:
        with local._lock(machine.directory, Deadline.after(1)):
            pass
    finally:
        os.kill(child, 9)


def test_a_server_that_died_is_replaced(machine: Machine) -> None:
    first = local.endpoint()
    machine.stop()
    second = local.endpoint()
    assert second.url != first.url
    assert len(machine.starts()) == 2


def test_a_server_that_is_going_is_not_joined(machine: Machine) -> None:
    """It answers once more, then takes its state file away; what it answered is not relied on."""
    first = local.endpoint()
    (machine.directory / "stop").touch()
    gone = threading.Event()

    def remove_after_answer(state: local.LocalEndpoint, probes: Any) -> bool:
        answered = answers(state, probes)
        if state == first and answered:
            while (machine.directory / "server.json").exists():
                time.sleep(0.01)
            (machine.directory / "stop").unlink()
            gone.set()
        return answered

    answers = local._answers
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(local, "_answers", remove_after_answer)
        assert local.endpoint() != first
    assert gone.is_set()


@pytest.mark.parametrize(
    "state",
    [
        b"",
        b"{",
        b"[]",
        b"{}",
        b'{"url": "nonsense", "api_key": "secret"}',
        b"\xff",
        b'{"url": 7, "api_key": 8}',
    ],
)
def test_a_damaged_state_file_is_no_server(machine: Machine, state: bytes) -> None:
    machine.directory.mkdir(mode=0o700)
    (machine.directory / "server.json").write_bytes(state)
    assert local.endpoint().api_key == "secret"


def test_what_a_failing_server_said_is_in_the_error(machine: Machine) -> None:
    machine.serve("import sys; sys.exit('sandboxes are not possible here: because')")
    with pytest.raises(SandboxException, match="sandboxes are not possible here: because"):
        local.endpoint()


def test_missing_dependencies_come_with_the_way_to_install_them(machine: Machine) -> None:
    machine.serve("import httptools_that_is_not_there")
    with pytest.raises(SandboxException, match=r"pip install 'sandbox-sync\[local\]'"):
        local.endpoint()


def test_a_server_that_is_never_ready_is_not_waited_for_forever(
    machine: Machine, monkeypatch: pytest.MonkeyPatch
) -> None:
    machine.serve(
        textwrap.dedent("""
            import json, os, sys, time
            directory = os.path.dirname(sys.argv[sys.argv.index("--state-file") + 1])
            with open(os.path.join(directory, "starts"), "a") as starts:
                starts.write(json.dumps({"pid": os.getpid()}) + "\\n")
            print("getting ready", flush=True)
            time.sleep(60)
        """)
    )
    monkeypatch.setattr(local, "START_SECONDS", 1.0)
    before = time.monotonic()
    with pytest.raises(SandboxException, match=r"not ready within 1 s(.|\n)*getting ready"):
        local.endpoint()
    assert time.monotonic() - before < 5


@pytest.mark.parametrize("answers", [True, False])
def test_a_server_that_is_not_ready_in_time_is_told_with_what_it_last_said(
    machine: Machine, monkeypatch: pytest.MonkeyPatch, answers: bool
) -> None:
    """G57: the error carries the last probe, its URL and its status."""
    machine.serve(
        textwrap.dedent(f"""
            import http.server, json, os, sys
            state = sys.argv[sys.argv.index("--state-file") + 1]
            with open(os.path.join(os.path.dirname(state), "starts"), "a") as starts:
                starts.write(json.dumps({{"pid": os.getpid()}}) + "\\n")

            class NotYet(http.server.BaseHTTPRequestHandler):
                def do_GET(self):
                    if {answers}:
                        self.send_error(503)

            server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), NotYet)
            with open(state, "w") as file:
                json.dump({{"url": f"http://127.0.0.1:{{server.server_port}}", "api_key": "secret"}}, file)
            server.serve_forever()
        """)
    )
    monkeypatch.setattr(local, "START_SECONDS", 1.0)
    with pytest.raises(SandboxException, match=r"not ready within 1 s") as caught:
        local.endpoint()
    said = "HTTP status 503" if answers else "closed connection without response"
    assert re.search(rf"http://127\.0\.0\.1:\d+/v2/sandboxes, it last answered: .*{said}", str(caught.value))
    assert caught.value.status == (503 if answers else None)
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize("kind", ["symlink", "open", "file"])
def test_a_directory_that_others_could_have_made_is_refused(
    machine: Machine, kind: str, tmp_path: Path
) -> None:
    if kind == "symlink":
        (tmp_path / "elsewhere").mkdir(mode=0o700)
        machine.directory.symlink_to(tmp_path / "elsewhere")
    elif kind == "open":
        machine.directory.mkdir()
        machine.directory.chmod(0o755)
    else:
        machine.directory.touch(mode=0o600)
    with pytest.raises(SandboxException, match="pose as the local sandbox server"):
        local.endpoint()
    assert machine.starts() == []


def test_without_a_runtime_directory_the_one_for_temporary_files_is_used(
    machine: Machine, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.delenv("XDG_RUNTIME_DIR")
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    machine.directory = tmp_path / f"sandbox-sync-{os.getuid()}"
    assert local.endpoint().api_key == "secret"
    assert len(machine.starts()) == 1


def test_inside_another_program_the_interpreter_is_found(
    machine: Machine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "executable", "/usr/bin/uwsgi")
    assert local.endpoint().api_key == "secret"
