"""Terminals in real sandboxes that cannot be, that go away, and that take too long."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import Any

import pytest

from sandbox_sync import (
    AuthenticationException,
    CommandTimeoutException,
    InvalidArgumentException,
    NotFoundException,
    PtySize,
    Sandbox,
    SandboxException,
    SandboxNotRunningException,
)
from tests.live.command_tools import threads, until
from tests.live.terminals import Terminal, terminal

SIZE = PtySize(rows=24, cols=100)
UNKNOWN_PID = 4_000_000

ABSURD_SIZES = [
    PtySize(rows=0, cols=80),
    PtySize(rows=24, cols=0),
    PtySize(rows=-1, cols=80),
    PtySize(rows=24, cols=70_000),
    PtySize(rows=24.5, cols=80),  # type: ignore[arg-type]
    PtySize(rows="24", cols="80"),  # type: ignore[arg-type]
    PtySize(rows=24, cols=None),  # type: ignore[arg-type]
    (24, 80),
    "24x80",
    None,
]


def test_sizes_that_no_terminal_can_have_are_refused(sandbox: Sandbox) -> None:
    with terminal(sandbox) as seen:
        for size in ABSURD_SIZES:
            for call in (
                lambda size=size: sandbox.pty.create(size),
                lambda size=size: sandbox.pty.resize(seen.handle.pid, size),
                lambda size=size: seen.handle.resize(size),
            ):
                with pytest.raises(InvalidArgumentException, match=r"rows|cols|PtySize"):
                    call()
        assert len(sandbox.commands.list()) == 1
        assert seen.run("stty size") == "24 100"


def test_a_terminal_that_cannot_be_made_is_a_named_error(sandbox: Sandbox) -> None:
    with pytest.raises(InvalidArgumentException, match="/no/such/place"):
        sandbox.pty.create(SIZE, cwd="/no/such/place")
    with pytest.raises(AuthenticationException, match="nobody_of_that_name") as caught:
        sandbox.pty.create(SIZE, user="nobody_of_that_name")
    assert caught.value.sandbox_id == sandbox.sandbox_id
    refused: list[dict[str, Any]] = [
        {"envs": {"A": 5}},
        {"envs": 5},
        {"envs": {"A": "\udcff"}},
        {"envs": {"A=B": "c"}},
        {"cwd": "a\0b"},
        {"cwd": 5},
        {"timeout": -1},
        {"timeout": "soon"},
        {"request_timeout": -1},
    ]
    for options in refused:
        with pytest.raises(InvalidArgumentException):
            sandbox.pty.create(SIZE, **options)
    assert sandbox.commands.list() == []


@pytest.mark.documented("Pty.kill", "Pty.send_stdin", "Pty.resize")
def test_a_terminal_that_does_not_run_is_a_named_error(sandbox: Sandbox) -> None:
    calls: dict[str, Any] = {
        "connect": lambda pid: sandbox.pty.connect(pid),
        "send_stdin": lambda pid: sandbox.pty.send_stdin(pid, b"x"),
        "stream_input": lambda pid: sandbox.pty.stream_input(pid, [b"x"]),
        "close_stdin": lambda pid: sandbox.pty.close_stdin(pid),
        "resize": lambda pid: sandbox.pty.resize(pid, SIZE),
    }
    for name, call in calls.items():
        with pytest.raises(NotFoundException, match=str(UNKNOWN_PID)) as caught:
            call(UNKNOWN_PID)
        assert caught.value.sandbox_id == sandbox.sandbox_id, name
        for absurd in (-1, 2**40, "x"):
            with pytest.raises(InvalidArgumentException):
                call(absurd)
    assert sandbox.pty.kill(UNKNOWN_PID) is False
    with terminal(sandbox) as seen:
        seen.type("exit\n")
        seen.handle.wait(timeout=10)
        sends: tuple[Callable[[], Any], ...] = (
            lambda: seen.handle.send_stdin("x"),
            lambda: seen.handle.close_stdin(),
            lambda: seen.handle.resize(SIZE),
        )
        for send in sends:
            with pytest.raises(NotFoundException):
                send()


def test_a_command_is_no_terminal_and_the_other_way_round(sandbox: Sandbox) -> None:
    with sandbox.commands.run("cat", background=True, stdin=True) as command:
        calls: tuple[Callable[[], Any], ...] = (
            lambda: sandbox.pty.resize(command.pid, SIZE),
            lambda: sandbox.pty.send_stdin(command.pid, "x"),
            lambda: sandbox.pty.stream_input(command.pid, ["x"]),
            lambda: sandbox.pty.close_stdin(command.pid),
        )
        for call in calls:
            with pytest.raises(SandboxException, match="terminal"):
                call()
        command.send_stdin("still there")
        until(lambda: command.stdout == "still there")
    with terminal(sandbox) as seen:
        with pytest.raises(SandboxException, match="terminal"):
            sandbox.commands.send_stdin(seen.handle.pid, "x")
        with pytest.raises(SandboxException, match="PTY"):
            sandbox.commands.close_stdin(seen.handle.pid)
        assert seen.run("echo still there") == "still there"


@pytest.mark.parametrize("data", [5, None, ["x"], "\udcff"])
def test_what_cannot_be_typed_is_refused(sandbox: Sandbox, data: Any) -> None:
    with terminal(sandbox) as seen:
        with pytest.raises(InvalidArgumentException):
            seen.handle.send_stdin(data)
        with pytest.raises(InvalidArgumentException):
            sandbox.pty.send_stdin(seen.handle.pid, data)
        assert seen.run("echo nothing came") == "nothing came"


@pytest.mark.documented("Pty.create")
def test_at_the_timeout_the_handle_ends_and_the_terminal_runs_on(sandbox: Sandbox) -> None:
    begin = time.monotonic()
    seen = Terminal(SIZE)
    seen.handle = sandbox.pty.create(SIZE, seen.show, timeout=1)
    seen.until(lambda: seen.at_prompt)
    seen.type("kept=in\n")
    with pytest.raises(CommandTimeoutException) as caught:
        seen.handle.wait()
    assert 0.95 < time.monotonic() - begin < 1.6
    assert (caught.value.clock, caught.value.limit) == ("timeout", 1)
    assert caught.value.pid == seen.handle.pid
    for call in (seen.handle.poll, seen.handle.wait, lambda: list(seen.handle)):
        with pytest.raises(CommandTimeoutException, match=f"connect.{seen.handle.pid}."):
            call()
    assert [listed.pid for listed in sandbox.commands.list()] == [seen.handle.pid]
    again = Terminal(SIZE)
    again.handle = sandbox.pty.connect(seen.handle.pid, again.show)
    again.type("\n")
    assert again.run("echo $kept") == "in"
    assert again.handle.kill()
    begin = time.monotonic()
    with sandbox.pty.create(SIZE) as handle:
        late = sandbox.pty.connect(handle.pid, timeout=0.5)
        with pytest.raises(CommandTimeoutException):
            late.wait()
        assert time.monotonic() - begin < 1.5
        assert handle.poll() is None


def test_waiting_can_be_bounded(sandbox: Sandbox) -> None:
    with sandbox.pty.create(SIZE, timeout=0) as handle:
        begin = time.monotonic()
        with pytest.raises(CommandTimeoutException, match="still runs"):
            handle.wait(timeout=0.3)
        assert 0.29 < time.monotonic() - begin < 0.8
        assert handle.poll() is None


@pytest.mark.parametrize("owner", [True, False])
def test_when_the_sandbox_is_killed_the_handle_ends_with_its_name(sandbox: Sandbox, owner: bool) -> None:
    shown: list[bytes] = []
    made = sandbox.pty.create(SIZE, shown.append)
    handle = made if owner else sandbox.pty.connect(made.pid)
    until(lambda: shown)
    iterated: list[Exception] = []

    def iterate() -> None:
        try:
            for _ in handle:
                pass
        except SandboxException as error:
            iterated.append(error)

    thread = threading.Thread(target=iterate)
    thread.start()
    sandbox.kill()
    with pytest.raises(SandboxNotRunningException) as caught:
        handle.wait(timeout=10)
    assert caught.value.sandbox_id == sandbox.sandbox_id
    assert caught.value.pid == made.pid
    assert caught.value.sandbox_state == "gone"
    thread.join(10)
    assert [type(error) for error in iterated] == [SandboxNotRunningException]
    with pytest.raises(SandboxNotRunningException):
        handle.poll()
    with pytest.raises(SandboxNotRunningException):
        handle.send_stdin("x")


def test_an_error_of_the_block_is_not_hidden_by_the_end_of_the_terminal(sandbox: Sandbox) -> None:
    def fail() -> None:
        sandbox.kill()
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError), sandbox.pty.create(SIZE):
        fail()


def test_no_thread_of_an_ended_terminal_is_left(sandbox: Sandbox) -> None:
    for _ in range(5):
        with sandbox.pty.create(SIZE) as handle:
            handle.send_stdin("exit\n")
            handle.wait(timeout=10)
        with sandbox.pty.create(SIZE, print):
            pass
        sandbox.pty.create(SIZE).disconnect()
    until(lambda: not threads("sandbox-sync-command"))
    for listed in sandbox.commands.list():
        assert sandbox.pty.kill(listed.pid)
