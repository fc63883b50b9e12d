"""Every entry of the documented surface, called in a real sandbox as it is documented.

With all of its documented parameters: once by name, and once by position in the documented order. A test's
marker names the entry, whose method and parameters `call` takes from the facts.
"""

from __future__ import annotations

import io
import sys
import threading
from collections.abc import Iterator, Sequence
from datetime import datetime, timedelta, timezone
from typing import Any
from uuid import uuid4

import pytest

from sandbox_sync import (
    CommandExitException,
    CommandHandle,
    CommandResult,
    Commands,
    EntryInfo,
    Filesystem,
    FilesystemEvent,
    FileType,
    InvalidArgumentException,
    ProcessInfo,
    Pty,
    PtySize,
    Sandbox,
    SandboxInfo,
    SandboxQuery,
    TimeoutException,
    WatchHandle,
    WriteInfo,
)
from tests.contract.documented import Entry, entries

ENTRIES = entries()

WITHIN = 20.0
"""Seconds for what comes at once if it comes at all."""


class Call:
    """Calls one entry as documented."""

    def __init__(self, entry: Entry, by_name: bool) -> None:
        self.entry = entry
        self.by_name = by_name

    def __call__(self, target: Any, /, **values: Any) -> Any:
        names = [parameter.name for parameter in self.entry.parameters]
        assert {*values} == {*names}, "a test has to give exactly what is documented"
        found = getattr(target, self.entry.method)
        if self.entry.is_property:
            return found
        return found(**values) if self.by_name else found(*(values[name] for name in names))


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if "call" in metafunc.fixturenames:
        marker = metafunc.definition.get_closest_marker("documented")
        assert marker is not None
        entry = ENTRIES[marker.args[0]]
        calls = [pytest.param(Call(entry, by_name=True), id="by name")]
        if entry.parameters:
            calls.append(pytest.param(Call(entry, by_name=False), id="by position"))
        metafunc.parametrize("call", calls)


def test_every_entry_has_its_test() -> None:
    tests = [value for name, value in vars(sys.modules[__name__]).items() if name.startswith("test_")]
    named = [
        mark.args[0]
        for test in tests
        for mark in getattr(test, "pytestmark", ())
        if mark.name == "documented"
    ]
    assert sorted(named) == sorted(ENTRIES)


@pytest.fixture
def account(server_env: dict[str, str], transport: str, monkeypatch: pytest.MonkeyPatch) -> dict[str, object]:
    """The documented connection options. The key is nowhere else, and no proxy leads to this machine."""
    monkeypatch.delenv("E2B_API_KEY")
    return {
        "api_key": server_env["E2B_API_KEY"],
        "domain": "sandboxes.example",
        "debug": False,
        "proxy": "http://127.0.0.1:9",
    }


@pytest.fixture
def other(sandbox: Sandbox, account: dict[str, object]) -> str:
    """The id of a sandbox that only `account` leads to."""
    return sandbox.sandbox_id


# The service: calls on the class.


@pytest.mark.documented("Sandbox.create")
def test_create(account: dict[str, object], call: Call) -> None:
    before = datetime.now(timezone.utc)
    sandbox = call(
        Sandbox,
        template="base",
        timeout=120,
        metadata={"made": "by the test"},
        envs={"GREETING": "hello"},
        request_timeout=30.0,
        secure=True,
        **account,
    )
    try:
        assert type(sandbox) is Sandbox
        info = sandbox.get_info()
        assert info.metadata == {"made": "by the test"}
        assert abs(info.end_at - before - timedelta(seconds=120)) < timedelta(seconds=10)
        assert sandbox.commands.run("echo $GREETING").stdout == "hello\n"
    finally:
        sandbox.kill()


@pytest.mark.documented("Sandbox.__init__")
@pytest.mark.parametrize("given", [(), ("base",)])
def test_a_sandbox_is_not_made_with_its_class(given: tuple[str, ...]) -> None:
    """The documents have the constructor only to say that it is not for use."""
    with pytest.raises(InvalidArgumentException, match=r"Use Sandbox\.create\(\)"):
        Sandbox(*given, api_key="key", domain="sandboxes.example")  # type: ignore[call-arg, arg-type]
    assert "Sandbox.create()" in (Sandbox.__init__.__doc__ or "")


@pytest.mark.documented("Sandbox.connect")
def test_connect(other: str, account: dict[str, object], call: Call) -> None:
    same = call(Sandbox, sandbox_id=other, **account)
    assert type(same) is Sandbox
    assert same.sandbox_id == other
    assert same.commands.run("echo here").stdout == "here\n"


@pytest.mark.documented("Sandbox.list")
def test_list(sandbox: Sandbox, account: dict[str, object], call: Call) -> None:
    mark = uuid4().hex
    with Sandbox.create(metadata={"mark": mark, "more": "x"}, **account) as marked:  # type: ignore[arg-type]
        query = SandboxQuery(metadata={"mark": mark})
        found = call(Sandbox, query=query, request_timeout=30.0, headers={"X-Test": "1"}, **account)
        assert isinstance(found, Sequence)
        assert [info.sandbox_id for info in found] == [marked.sandbox_id]
        assert type(found[0]) is SandboxInfo
        both = SandboxQuery(metadata={"mark": mark, "more": "y"})
        assert len(Sandbox.list(query=both, **account)) == 0  # type: ignore[arg-type]


@pytest.mark.documented("Sandbox.get_info[by id]")
def test_get_info_by_id(other: str, account: dict[str, object], call: Call) -> None:
    info = call(Sandbox, sandbox_id=other, request_timeout=30.0, headers={"X-Test": "1"}, **account)
    assert type(info) is SandboxInfo
    assert info.sandbox_id == other


@pytest.mark.documented("Sandbox.kill[by id]")
def test_kill_by_id(other: str, account: dict[str, object], call: Call) -> None:
    assert call(Sandbox, sandbox_id=other, request_timeout=30.0, **account) is True
    assert call(Sandbox, sandbox_id=other, request_timeout=30.0, **account) is False


@pytest.mark.documented("Sandbox.set_timeout[by id]")
def test_set_timeout_by_id(sandbox: Sandbox, account: dict[str, object], call: Call) -> None:
    given = {"sandbox_id": sandbox.sandbox_id, "timeout": 900, "request_timeout": 30.0, **account}
    assert call(Sandbox, **given) is None
    assert left(sandbox) > timedelta(seconds=890)


def left(sandbox: Sandbox) -> timedelta:
    """The life that a sandbox has left."""
    return sandbox.get_info().end_at - datetime.now(timezone.utc)


# A sandbox.


@pytest.mark.documented("Sandbox.files")
def test_files(sandbox: Sandbox, call: Call) -> None:
    assert type(call(sandbox)) is Filesystem


@pytest.mark.documented("Sandbox.commands")
def test_commands(sandbox: Sandbox, call: Call) -> None:
    assert type(call(sandbox)) is Commands


@pytest.mark.documented("Sandbox.pty")
def test_pty(sandbox: Sandbox, call: Call) -> None:
    assert type(call(sandbox)) is Pty


@pytest.mark.documented("Sandbox.sandbox_id")
def test_sandbox_id(sandbox: Sandbox, call: Call) -> None:
    found = call(sandbox)
    assert type(found) is str
    assert Sandbox.get_info(found).sandbox_id == found


@pytest.mark.documented("Sandbox.is_running")
def test_is_running(sandbox: Sandbox, call: Call) -> None:
    assert call(sandbox, request_timeout=30.0) is True
    sandbox.kill()
    assert call(sandbox, request_timeout=30.0) is False


@pytest.mark.documented("Sandbox.kill")
def test_kill(sandbox: Sandbox, call: Call) -> None:
    assert call(sandbox, request_timeout=30.0) is True
    assert call(sandbox, request_timeout=30.0) is False


@pytest.mark.documented("Sandbox.set_timeout")
def test_set_timeout(sandbox: Sandbox, call: Call) -> None:
    assert call(sandbox, timeout=900, request_timeout=30.0) is None
    assert left(sandbox) > timedelta(seconds=890)
    assert call(sandbox, timeout=100, request_timeout=30.0) is None
    assert left(sandbox) <= timedelta(seconds=100)


@pytest.mark.documented("Sandbox.get_info")
def test_get_info(sandbox: Sandbox, call: Call) -> None:
    info = call(sandbox, request_timeout=30.0)
    assert type(info) is SandboxInfo
    assert info.sandbox_id == sandbox.sandbox_id
    assert info.template_id
    assert info.metadata == {}
    assert info.started_at < info.end_at


# Files.

FOR_USER = {"user": "user", "request_timeout": 30.0}


def is_entry(found: object, path: str, kind: FileType = FileType.FILE) -> None:
    """What is returned of a file has the documented fields."""
    assert type(found) in (EntryInfo, WriteInfo)
    assert isinstance(found, (EntryInfo, WriteInfo))
    assert (found.name, found.type, found.path) == (path.rpartition("/")[2], kind, path)


@pytest.mark.documented("Filesystem.read[text]")
def test_read_text(sandbox: Sandbox, call: Call) -> None:
    sandbox.files.write("text", "gr\u00fcn\r\n")
    found = call(sandbox.files, path="text", format="text", **FOR_USER)
    assert type(found) is str
    assert found == sandbox.files.read("text") == "gr\u00fcn\r\n"


@pytest.mark.documented("Filesystem.read[bytes]")
def test_read_bytes(sandbox: Sandbox, call: Call) -> None:
    sandbox.files.write("binary", b"\x00\xff")
    found = call(sandbox.files, path="binary", format="bytes", **FOR_USER)
    assert type(found) is bytearray
    assert found == b"\x00\xff"


@pytest.mark.documented("Filesystem.read[stream]")
def test_read_a_stream(sandbox: Sandbox, call: Call) -> None:
    content = bytes(range(256)) * 4096
    sandbox.files.write("binary", content)
    found = call(sandbox.files, path="binary", format="stream", **FOR_USER)
    assert isinstance(found, Iterator)
    chunks = [*found]
    assert all(type(chunk) is bytes for chunk in chunks)
    assert b"".join(chunks) == content


@pytest.mark.documented("Filesystem.write[one]")
def test_write_one(sandbox: Sandbox, call: Call) -> None:
    for data in ("text", b"text", io.BytesIO(b"text"), io.StringIO("text")):
        sandbox.files.write("/tmp/new/file", "to be replaced by less")
        found = call(sandbox.files, path="/tmp/new/file", data=data, **FOR_USER)
        is_entry(found, "/tmp/new/file")
        assert sandbox.files.read("/tmp/new/file") == "text"


FILES = [{"path": "/tmp/a", "data": "a"}, {"path": "/tmp/new/b", "data": b"b"}]


@pytest.mark.documented("Filesystem.write[several]")
@pytest.mark.parametrize("user", ["user", None])
def test_write_several(sandbox: Sandbox, call: Call, user: str | None) -> None:
    found = call(sandbox.files, files=FILES, user=user, request_timeout=30.0)
    assert type(found) is list
    is_entry(found[0], "/tmp/a")
    is_entry(found[1], "/tmp/new/b")
    assert sandbox.files.read("/tmp/new/b") == "b"


@pytest.mark.documented("Filesystem.write[either]")
def test_write_either(sandbox: Sandbox, call: Call) -> None:
    one = call(
        sandbox.files,
        path_or_files="/tmp/new/one",
        data_or_user="one",
        user_or_request_timeout="root",
        request_timeout_or_none=30.0,
    )
    is_entry(one, "/tmp/new/one")
    assert sandbox.files.get_info("/tmp/new/one").owner == "root"
    several = call(
        sandbox.files,
        path_or_files=FILES,
        data_or_user="user",
        user_or_request_timeout=30.0,
        request_timeout_or_none=None,
    )
    is_entry(several[1], "/tmp/new/b")


@pytest.mark.documented("Filesystem.list")
def test_list_files(sandbox: Sandbox, call: Call) -> None:
    sandbox.files.write("/tmp/tree/below/file", "x")
    found = call(sandbox.files, path="/tmp/tree", depth=1, **FOR_USER)
    assert type(found) is list
    (below,) = found
    is_entry(below, "/tmp/tree/below", FileType.DIR)
    deeper = call(sandbox.files, path="/tmp/tree", depth=2, **FOR_USER)
    is_entry(deeper[1], "/tmp/tree/below/file")
    assert sandbox.files.list("/tmp/tree") == found


@pytest.mark.documented("Filesystem.exists")
def test_exists(sandbox: Sandbox, call: Call) -> None:
    assert call(sandbox.files, path="/tmp", **FOR_USER) is True
    assert call(sandbox.files, path="/tmp/nothing", **FOR_USER) is False


@pytest.mark.documented("Filesystem.remove")
def test_remove(sandbox: Sandbox, call: Call) -> None:
    sandbox.files.write("/tmp/tree/file", "x")
    assert call(sandbox.files, path="/tmp/tree/file", **FOR_USER) is None
    assert call(sandbox.files, path="/tmp/tree", **FOR_USER) is None
    assert not sandbox.files.exists("/tmp/tree")


@pytest.mark.documented("Filesystem.rename")
def test_rename(sandbox: Sandbox, call: Call) -> None:
    sandbox.files.write("/tmp/old", "x")
    is_entry(call(sandbox.files, old_path="/tmp/old", new_path="/tmp/new", **FOR_USER), "/tmp/new")
    assert sandbox.files.read("/tmp/new") == "x"
    assert not sandbox.files.exists("/tmp/old")


@pytest.mark.documented("Filesystem.make_dir")
def test_make_dir(sandbox: Sandbox, call: Call) -> None:
    assert call(sandbox.files, path="/tmp/a/b/c", **FOR_USER) is True
    assert call(sandbox.files, path="/tmp/a/b/c", **FOR_USER) is False


@pytest.mark.documented("Filesystem.watch_dir")
def test_watch_dir(sandbox: Sandbox, call: Call) -> None:
    sandbox.files.make_dir("/tmp/tree/below")
    events: list[FilesystemEvent] = []
    ends: list[Exception | None] = []
    seen, ended = threading.Event(), threading.Event()

    def on_event(event: FilesystemEvent) -> None:
        events.append(event)
        if event.name.endswith("file"):
            seen.set()

    def on_exit(error: Exception | None) -> None:
        ends.append(error)
        ended.set()

    watch = call(
        sandbox.files,
        path="/tmp/tree",
        on_event=on_event,
        on_exit=on_exit,
        timeout=60.0,
        recursive=True,
        **FOR_USER,
    )
    assert type(watch) is WatchHandle
    sandbox.files.write("/tmp/tree/below/file", "x")
    assert seen.wait(WITHIN), events
    assert all(type(event) is FilesystemEvent for event in events)
    watch.stop()
    assert ended.wait(WITHIN)
    assert ends == [None]


@pytest.mark.documented("WatchHandle.stop")
def test_stop_watching(sandbox: Sandbox, call: Call) -> None:
    sandbox.files.make_dir("/tmp/tree")
    ended = threading.Event()
    events: list[FilesystemEvent] = []
    watch = sandbox.files.watch_dir("/tmp/tree", events.append, lambda error: ended.set())
    assert call(watch) is None
    assert ended.wait(WITHIN)
    sandbox.files.write("/tmp/tree/file", "x")
    assert events == []


# Terminals.


class Screen:
    """What a terminal wrote."""

    def __init__(self, sandbox: Sandbox) -> None:
        self._sandbox = sandbox
        self.data = b""
        self._grew = threading.Condition()

    def add(self, data: bytes) -> None:
        assert type(data) is bytes
        with self._grew:
            self.data += data
            self._grew.notify_all()

    def wait_for(self, text: bytes) -> None:
        with self._grew:
            if self._grew.wait_for(lambda: text in self.data, WITHIN):
                return
        told = self._sandbox.commands.run("ps -eo pid,pgid,tpgid,stat,wchan,args", user="root", check=False)
        pytest.fail(f"{self.data!r} was shown, while these ran:\n{told.stdout}")


@pytest.fixture
def screen(sandbox: Sandbox) -> Screen:
    return Screen(sandbox)


@pytest.fixture
def terminal(sandbox: Sandbox, screen: Screen) -> CommandHandle:
    """A terminal with its shell."""
    return sandbox.pty.create(PtySize(24, 80), screen.add)


@pytest.mark.documented("Pty.create")
def test_create_a_terminal(sandbox: Sandbox, screen: Screen, call: Call) -> None:
    handle = call(
        sandbox.pty,
        size=PtySize(rows=33, cols=77),
        on_data=screen.add,
        cwd="/tmp",
        envs={"GREETING": "hello"},
        timeout=60.0,
        **FOR_USER,
    )
    assert isinstance(handle, CommandHandle)
    sandbox.pty.send_stdin(handle.pid, b'stty size; pwd; echo "$GREETING $USER"; exit 7\n')
    screen.wait_for(b"33 77\r\n/tmp\r\nhello user\r\n")
    assert handle.kill() in (True, False)


@pytest.mark.documented("Pty.send_stdin")
def test_send_to_a_terminal(sandbox: Sandbox, screen: Screen, terminal: CommandHandle, call: Call) -> None:
    assert call(sandbox.pty, pid=terminal.pid, data=b"echo $((6 * 7))x\n", request_timeout=30.0) is None
    screen.wait_for(b"42x\r\n")


@pytest.mark.documented("Pty.resize")
def test_resize_a_terminal(sandbox: Sandbox, screen: Screen, terminal: CommandHandle, call: Call) -> None:
    assert call(sandbox.pty, pid=terminal.pid, size=PtySize(50, 120), request_timeout=30.0) is None
    sandbox.pty.send_stdin(terminal.pid, b"stty size\n")
    screen.wait_for(b"50 120\r\n")


@pytest.mark.documented("Pty.kill")
def test_kill_a_terminal(sandbox: Sandbox, terminal: CommandHandle, call: Call) -> None:
    assert call(sandbox.pty, pid=terminal.pid, request_timeout=30.0) is True
    assert terminal.pid not in [process.pid for process in sandbox.commands.list()]
    assert call(sandbox.pty, pid=terminal.pid, request_timeout=30.0) is False


# Commands.

RUN = {"envs": {"A": "1"}, "user": "root", "cwd": "/tmp", "timeout": 60.0, "request_timeout": 30.0}


@pytest.mark.documented("Commands.run[foreground]")
@pytest.mark.parametrize("background", [False, None])
def test_run(sandbox: Sandbox, call: Call, background: bool | None) -> None:
    out: list[str] = []
    err: list[str] = []
    script = 'echo "$A $(whoami) $(pwd)"; echo problem >&2'
    result = call(
        sandbox.commands, cmd=script, background=background, on_stdout=out.append, on_stderr=err.append, **RUN
    )
    assert type(result) is CommandResult
    assert result.stdout == "".join(out) == "1 root /tmp\n"
    assert result.stderr == "".join(err) == "problem\n"
    assert (result.exit_code, result.error) == (0, None)


@pytest.mark.documented("Commands.run[background]")
def test_run_in_the_background(sandbox: Sandbox, call: Call) -> None:
    out: list[str] = []
    err: list[str] = []
    script = 'echo "$A $(whoami) $(pwd)"; echo problem >&2'
    handle = call(
        sandbox.commands, cmd=script, background=True, on_stdout=out.append, on_stderr=err.append, **RUN
    )
    assert type(handle) is CommandHandle
    assert handle.wait().stdout == "".join(out) == "1 root /tmp\n"
    assert handle.stderr == "".join(err) == "problem\n"


@pytest.fixture
def waiting(sandbox: Sandbox) -> CommandHandle:
    """A command that waits for a line, and ends with an exit code and a word."""
    return sandbox.commands.run("read line; echo got $line; exit ${line#exit}", background=True, stdin=True)


@pytest.mark.documented("Commands.connect")
def test_connect_to_a_command(sandbox: Sandbox, waiting: CommandHandle, call: Call) -> None:
    out: list[str] = []
    err: list[str] = []
    handle = call(
        sandbox.commands,
        pid=waiting.pid,
        timeout=60.0,
        request_timeout=30.0,
        on_stdout=out.append,
        on_stderr=err.append,
    )
    assert type(handle) is CommandHandle
    waiting.send_stdin("exit0\n")
    assert handle.wait().stdout == "".join(out) == "got exit0\n"
    assert err == []


@pytest.mark.documented("Commands.list")
def test_list_commands(sandbox: Sandbox, waiting: CommandHandle, call: Call) -> None:
    found = call(sandbox.commands, request_timeout=30.0)
    assert type(found) is list
    assert [(type(process), process.pid) for process in found] == [(ProcessInfo, waiting.pid)]


@pytest.mark.documented("Commands.kill")
def test_kill_a_command(sandbox: Sandbox, waiting: CommandHandle, call: Call) -> None:
    assert call(sandbox.commands, pid=waiting.pid, request_timeout=30.0) is True
    assert call(sandbox.commands, pid=waiting.pid, request_timeout=30.0) is False


@pytest.mark.documented("Commands.send_stdin")
def test_send_to_a_command(sandbox: Sandbox, waiting: CommandHandle, call: Call) -> None:
    assert call(sandbox.commands, pid=waiting.pid, data="exit0\n", request_timeout=30.0) is None
    assert waiting.wait().stdout == "got exit0\n"


# Handles.


@pytest.mark.documented("CommandHandle.pid")
def test_pid(sandbox: Sandbox, waiting: CommandHandle, call: Call) -> None:
    assert type(call(waiting)) is int
    assert [process.pid for process in sandbox.commands.list()] == [call(waiting)]


@pytest.mark.documented("CommandHandle.stdout")
def test_stdout(sandbox: Sandbox, call: Call) -> None:
    arrived = threading.Event()
    handle = sandbox.commands.run("echo now; read", True, on_stdout=lambda text: arrived.set(), stdin=True)
    assert arrived.wait(WITHIN)
    assert call(handle) == "now\n"


@pytest.mark.documented("CommandHandle.stderr")
def test_stderr(sandbox: Sandbox, call: Call) -> None:
    arrived = threading.Event()
    handle = sandbox.commands.run(
        "echo now >&2; read", True, on_stderr=lambda text: arrived.set(), stdin=True
    )
    assert arrived.wait(WITHIN)
    assert call(handle) == "now\n"


@pytest.mark.documented("CommandHandle.error")
def test_error(sandbox: Sandbox, call: Call) -> None:
    handle = sandbox.commands.run("read", background=True, stdin=True, check=False)
    assert call(handle) is None
    handle.kill()
    assert handle.wait().exit_code != 0
    assert "killed" in call(handle)


@pytest.mark.documented("CommandHandle.exit_code")
def test_exit_code(waiting: CommandHandle, call: Call) -> None:
    assert call(waiting) is None
    waiting.send_stdin("exit3\n")
    with pytest.raises(CommandExitException):
        waiting.wait()
    assert call(waiting) == 3


@pytest.mark.documented("CommandHandle.disconnect")
def test_disconnect(sandbox: Sandbox, waiting: CommandHandle, call: Call) -> None:
    assert call(waiting) is None
    again = sandbox.commands.connect(waiting.pid)
    sandbox.commands.send_stdin(waiting.pid, "exit0\n")
    assert again.wait().stdout == "got exit0\n"
    assert waiting.stdout == ""


@pytest.mark.documented("CommandHandle.wait")
def test_wait(sandbox: Sandbox, waiting: CommandHandle, call: Call) -> None:
    with pytest.raises(TimeoutException):
        waiting.wait(0.1)
    waiting.send_stdin("exit3\n")
    with pytest.raises(CommandExitException) as caught:
        call(waiting)
    assert (caught.value.exit_code, caught.value.stdout) == (3, "got exit3\n")
    result = call(sandbox.commands.run("echo fine", background=True))
    assert type(result) is CommandResult
    assert result.stdout == "fine\n"


@pytest.mark.documented("CommandHandle.kill")
def test_kill_with_the_handle(waiting: CommandHandle, call: Call) -> None:
    assert call(waiting) is True
    with pytest.raises(CommandExitException):
        waiting.wait()
    assert call(waiting) is False
