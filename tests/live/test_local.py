"""`domain="local"`: a server that nobody had to start."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from sandbox_sync import Sandbox, local

PROGRAM = """
from sandbox_sync import Sandbox
with Sandbox.create(domain="local") as sandbox:
    sandbox.files.write("hello.py", "print('hello from', 6 * 7)")
    print(sandbox.commands.run("python3 hello.py || echo hello from 42").stdout, end="")
"""


@pytest.fixture
def directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A runtime directory of the test's own; its server is ended afterwards."""
    for name in [name for name in os.environ if name.startswith("E2B_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    yield tmp_path / "sandbox-sync"
    try:
        pid = json.loads((tmp_path / "sandbox-sync" / "server.json").read_text())["pid"]
        os.kill(pid, signal.SIGTERM)
    except (FileNotFoundError, ProcessLookupError):
        return
    deadline = time.monotonic() + 20
    while local._is_alive(pid):
        assert time.monotonic() < deadline, "the server did not end"
        time.sleep(0.05)


def test_programs_share_a_server_that_the_first_one_starts(directory: Path) -> None:
    """G26: no account, no key, nothing started by hand."""
    programs = [
        subprocess.Popen(
            [sys.executable, "-c", PROGRAM], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )
        for _ in range(3)
    ]
    for program in programs:
        assert program.communicate(timeout=90) == ("hello from 42\n", "")
    state = json.loads((directory / "server.json").read_text())
    with Sandbox.create(domain="local") as sandbox:
        assert sandbox.is_running()
        assert json.loads((directory / "server.json").read_text()) == state
        assert state["api_key"] not in repr(sandbox)


def test_a_forked_child_joins_too(directory: Path) -> None:
    with Sandbox.create(domain="local") as sandbox:
        child = os.fork()
        if not child:
            try:
                same = Sandbox.connect(sandbox.sandbox_id, domain="local")
                os._exit(0 if same.commands.run("echo ok").stdout == "ok\n" else 1)
            finally:
                os._exit(2)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
        assert sandbox.is_running()


def test_a_pickled_sandbox_finds_its_server(directory: Path) -> None:
    """G61."""
    code = "import pickle, sys; print(pickle.load(sys.stdin.buffer).commands.run('echo there').stdout)"
    import pickle

    with Sandbox.create(domain="local") as sandbox:
        said = subprocess.run(
            [sys.executable, "-c", code],
            input=pickle.dumps(sandbox),
            stdout=subprocess.PIPE,
            timeout=60,
            check=True,
        )
    assert said.stdout.strip() == b"there"


def test_a_server_that_was_killed_is_replaced(directory: Path) -> None:
    first = local.endpoint()
    pid = json.loads((directory / "server.json").read_text())["pid"]
    os.kill(pid, signal.SIGKILL)
    while local._is_alive(pid):
        time.sleep(0.01)
    with Sandbox.create(domain="local") as sandbox:
        assert sandbox.commands.run("echo again").stdout == "again\n"
    assert local.endpoint() != first
