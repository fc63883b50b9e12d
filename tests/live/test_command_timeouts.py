"""How long commands may take in real sandboxes, and what is left of them afterwards."""

from __future__ import annotations

import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import pytest

from sandbox_sync import (
    CommandHandle,
    CommandTimeoutException,
    InvalidArgumentException,
    RequestTimeoutException,
    Sandbox,
    TimeoutException,
)
from tests.live.command_tools import sleeping, threads, until

# A shell with a child, a child of its own session, one that ignores the hang-up, a daemon that listens.
FAMILY = """
    sleep 54321 &
    setsid sleep 54322 &
    nohup sleep 54323 >/dev/null 2>&1 &
    sh -c 'sleep 54324 &'
    setsid python3 -c '
import os, socket, subprocess
if os.fork(): os._exit(0)
os.setsid()
listener = socket.create_server(("127.0.0.1", 8127))
for fd in range(3): os.close(fd)
subprocess.run(["sleep", "54325"])'
    until (exec 3<>/dev/tcp/127.0.0.1/8127) 2>/dev/null; do sleep 0.02; done
    echo begun; echo wrong >&2
    sleep 54326; echo never
"""
MARKS = [f"5432{n}" for n in range(1, 7)]


def port_is_open(sandbox: Sandbox) -> bool:
    found = sandbox.commands.run("(exec 3<>/dev/tcp/127.0.0.1/8127) 2>/dev/null", check=False)
    return found.exit_code == 0


@pytest.mark.documented("Commands.run[foreground]")
def test_a_foreground_timeout_leaves_no_process_and_carries_the_output(sandbox: Sandbox) -> None:
    """G6: no descendant is alive: children, sessions of their own, nohup, daemons; and the port is free."""
    before = time.monotonic()
    with pytest.raises(CommandTimeoutException) as caught:
        sandbox.commands.run(FAMILY, timeout=2)
    assert 2 <= time.monotonic() - before < 3.5
    error = caught.value
    assert (error.stdout, error.stderr) == ("begun\n", "wrong\n")
    assert (error.clock, error.limit) == ("timeout", 2)
    assert error.pid
    assert not sleeping(sandbox, *MARKS)
    assert not port_is_open(sandbox)
    assert sandbox.commands.list() == []


@pytest.mark.documented("CommandHandle.kill")
@pytest.mark.parametrize("how", ["handle", "id", "block"])
def test_a_kill_leaves_no_process(sandbox: Sandbox, how: str) -> None:
    """G6: the same of a kill."""
    with sandbox.commands.run(FAMILY, background=True, check=False) as handle:
        assert next(piece for piece in handle if piece[0]) == ("begun\n", None, None)
        assert all(sleeping(sandbox, mark) for mark in MARKS)
        assert port_is_open(sandbox)
        if how == "handle":
            assert handle.kill() is True
        elif how == "id":
            assert sandbox.commands.kill(handle.pid) is True
    assert not sleeping(sandbox, *MARKS)
    assert not port_is_open(sandbox)
    if how != "block":
        assert handle.wait(timeout=5).error == "signal: killed"


def test_what_ends_the_command_first_is_always_the_same(sandbox: Sandbox) -> None:
    """G3: the server's deadline and the client's never race: 100 runs of a timed-out command, one type."""
    with ThreadPoolExecutor(20) as pool:
        runs = [pool.submit(sandbox.commands.run, "sleep 100", timeout=0.3) for _ in range(100)]
        assert {type(run.exception(60)) for run in runs} == {CommandTimeoutException}
    assert sandbox.commands.list() == []


def test_a_timeout_of_any_length_is_kept_to(sandbox: Sandbox) -> None:
    """G4: for N in 0.5 and 1: N <= elapsed <= N + 0.5, with output all the time."""
    for limit in (0.5, 1):
        before = time.monotonic()
        with pytest.raises(CommandTimeoutException) as caught:
            sandbox.commands.run("while sleep 0.1; do echo x; done", timeout=limit)
        assert limit <= time.monotonic() - before <= limit + 0.5
        assert caught.value.stdout is not None
        assert caught.value.stdout.startswith("x\n")


def test_each_clock_has_its_name(sandbox: Sandbox) -> None:
    """G5: the lifetime of the sandbox, the run time of the command and the time of a request."""
    handle = sandbox.commands.run("sleep 100", background=True, timeout=0.3)
    with pytest.raises(CommandTimeoutException, match=r"0\.3 s") as followed:
        handle.wait()
    assert (followed.value.clock, followed.value.limit) == ("timeout", 0.3)
    with pytest.raises(CommandTimeoutException, match=r"wait\(timeout=0\.2\)") as waited:
        sandbox.commands.connect(handle.pid).wait(timeout=0.2)
    assert waited.value.limit == 0.2
    with pytest.raises(RequestTimeoutException, match=r"request_timeout") as asked:
        sandbox.commands.run("true", request_timeout=0.0001)
    assert (asked.value.clock, asked.value.limit) == ("request_timeout", 0.0001)
    follower = sandbox.commands.connect(handle.pid)
    sandbox.set_timeout(0)
    with pytest.raises(TimeoutException) as ended:
        follower.wait(timeout=10)
    assert ended.value.clock == "sandbox lifetime"


@pytest.mark.documented("Commands.run[foreground]")
@pytest.mark.parametrize("timeout", [0, None])
def test_no_timeout_is_none(sandbox: Sandbox, timeout: float | None) -> None:
    """G56: there is no hidden limit: a command is silent for longer than any request may take.

    A request_timeout of 0.8 s stands for all limits that there are, so that 1.8 s say what six minutes would;
    silence with nothing but keepalives is in test_sdk_connect.py.
    """
    impatient = Sandbox.connect(sandbox.sandbox_id, request_timeout=0.8)
    assert impatient.commands.run("sleep 1.8; echo x", timeout=timeout).stdout == "x\n"
    handle = impatient.commands.run("sleep 1.8; echo x", background=True, timeout=timeout)
    assert handle.wait(timeout=timeout).stdout == "x\n"


@pytest.mark.parametrize("timeout", [-1, float("nan"), float("inf"), "60", [1]])
def test_what_is_no_time_is_refused(sandbox: Sandbox, timeout: float) -> None:
    handle = sandbox.commands.run("sleep 100", background=True)
    calls: list[Callable[[], object]] = [
        lambda: sandbox.commands.run("true", timeout=timeout),
        lambda: sandbox.commands.run("true", background=True, timeout=timeout),
        lambda: sandbox.commands.connect(handle.pid, timeout=timeout),
        lambda: handle.wait(timeout=timeout),
    ]
    for call in calls:
        with pytest.raises(InvalidArgumentException, match="timeout"):
            call()
    assert len(sandbox.commands.list()) == 1


@pytest.mark.documented("Commands.run[background]", "Commands.connect")
def test_a_background_command_outlives_its_timeout(sandbox: Sandbox) -> None:
    """G8: the handle stops following, the command runs on and can be followed again."""
    handle = sandbox.commands.run("echo begun; read x; echo got $x", background=True, stdin=True, timeout=0.7)
    with pytest.raises(
        CommandTimeoutException, match=rf"runs on; commands\.connect\({handle.pid}\)"
    ) as caught:
        handle.wait()
    assert (caught.value.stdout, caught.value.pid, caught.value.clock) == ("begun\n", handle.pid, "timeout")
    with pytest.raises(CommandTimeoutException):
        list(handle)
    with pytest.raises(CommandTimeoutException):
        handle.poll()
    assert handle.exit_code is None
    assert [process.pid for process in sandbox.commands.list()] == [handle.pid]
    again = sandbox.commands.connect(handle.pid)
    again.send_stdin("it\n")
    assert again.wait(timeout=10).stdout == "got it\n"


def test_a_background_command_without_timeout_lives_until_it_ends(sandbox: Sandbox) -> None:
    """G8: `sleep 90` is listed at 75 s, past the default of 60 s, and ends with 0; scaled down.

    A timeout of 2 s stands for the default: it ends what its handle sees, and neither command.
    """
    with_default = sandbox.commands.run("sleep 4", background=True, timeout=2)
    without = sandbox.commands.run("sleep 4", background=True, timeout=0)
    with pytest.raises(CommandTimeoutException):
        with_default.wait(timeout=10)
    assert {process.pid for process in sandbox.commands.list()} == {with_default.pid, without.pid}
    assert without.wait(timeout=10).exit_code == 0
    assert sandbox.commands.run("true", background=True).wait(timeout=10).exit_code == 0


def test_run_returns_when_a_daemon_is_left_behind(sandbox: Sandbox) -> None:
    """G56: a command that leaves a process with its own output behind ends all the same, and leaves it."""
    before = time.monotonic()
    result = sandbox.commands.run("sleep 33333 >/dev/null 2>&1 </dev/null & echo left", timeout=20)
    assert time.monotonic() - before < 5
    assert result.stdout == "left\n"
    assert sleeping(sandbox, "33333")


def test_a_child_that_holds_the_output_is_followed_to_its_end(sandbox: Sandbox) -> None:
    """G56: output of a child that outlives the shell is the command's, as with E2B's servers: it is waited
    for, within the timeout, which ends both; the shell's own output is in the error.
    """
    result = sandbox.commands.run("(sleep 0.5; echo of the child) & echo of the shell", timeout=20)
    assert result.stdout == "of the shell\nof the child\n"
    before = time.monotonic()
    with pytest.raises(CommandTimeoutException) as caught:
        sandbox.commands.run("sleep 44444 & echo of the shell", timeout=1)
    assert time.monotonic() - before < 2
    assert caught.value.stdout == "of the shell\n"
    assert not sleeping(sandbox, "44444")


def test_starts_that_are_not_seen_leave_no_command(sandbox: Sandbox) -> None:
    """Whenever during its start the time of the request ends, a command has a handle or does not run."""

    def start(number: int) -> CommandHandle | None:
        limit = 0.001 + number * 0.001
        try:
            return sandbox.commands.run("sleep 12121", background=True, request_timeout=limit)
        except RequestTimeoutException:
            return None

    with ThreadPoolExecutor(4) as pool:
        handles = [*pool.map(start, range(40))]
    until(lambda: not threads("sandbox-sync-kill"))
    kept = {handle.pid for handle in handles if handle is not None}
    assert {process.pid for process in sandbox.commands.list()} == kept
    assert len(kept) < 40
