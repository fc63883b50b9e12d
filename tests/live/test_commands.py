"""Commands in real sandboxes."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import pytest

from sandbox_sync import (
    AuthenticationException,
    CommandExitException,
    CommandTimeoutException,
    InvalidArgumentException,
    NotFoundException,
    Sandbox,
    SandboxException,
    TimeoutException,
)


def until(condition: Callable[[], object], within: float = 10.0) -> None:
    """Wait for something that has no event to wait for."""
    deadline = time.monotonic() + within
    while not condition():
        assert time.monotonic() < deadline, "it did not come about"
        time.sleep(0.02)


def sleeping(sandbox: Sandbox, mark: str) -> bool:
    """Whether a `sleep` of this mark runs anywhere in the sandbox, listed or not."""
    found = sandbox.commands.run(f"grep -als '^sleep.{mark}' /proc/[0-9]*/cmdline", check=False, user="root")
    return found.exit_code == 0


def test_a_command_runs_as_the_user_in_the_users_home(sandbox: Sandbox) -> None:
    result = sandbox.commands.run("whoami; pwd; echo problem >&2")
    assert result.stdout == "user\n/home/user\n"
    assert result.stderr == "problem\n"
    assert (result.exit_code, result.error, result.truncated) == (0, None, False)


def test_user_directory_and_environment_can_be_chosen(sandbox: Sandbox) -> None:
    result = sandbox.commands.run(
        'whoami; pwd; echo "$A|$B"', user="root", cwd="/tmp", envs={"A": "1 2", "B": "\u00e4"}
    )
    assert result.stdout == "root\n/tmp\n1 2|\u00e4\n"
    assert sandbox.commands.run("mkdir -p d").exit_code == 0
    assert sandbox.commands.run("pwd", cwd="d").stdout == "/home/user/d\n"


def test_an_exit_code_is_an_error_that_says_everything(sandbox: Sandbox) -> None:
    with pytest.raises(CommandExitException) as caught:
        sandbox.commands.run("echo out; echo err >&2; exit 42")
    error = caught.value
    assert (error.exit_code, error.stdout, error.stderr) == (42, "out\n", "err\n")
    assert "42" in str(error)
    assert "err" in str(error)
    assert sandbox.commands.run("exit 42", check=False).exit_code == 42


def test_a_missing_program_is_an_exit_code(sandbox: Sandbox) -> None:
    result = sandbox.commands.run("no_such_program_anywhere", check=False)
    assert result.exit_code == 127
    assert "no_such_program_anywhere" in result.stderr


def test_a_signal_is_minus_one_and_named(sandbox: Sandbox) -> None:
    result = sandbox.commands.run("kill -KILL $$", check=False)
    assert result.exit_code == -1
    assert result.error is not None
    assert "killed" in result.error


def test_a_missing_directory_is_an_invalid_argument(sandbox: Sandbox) -> None:
    with pytest.raises(InvalidArgumentException, match="/no/such/place"):
        sandbox.commands.run("true", cwd="/no/such/place")
    with pytest.raises(InvalidArgumentException):
        sandbox.commands.run("true", cwd="/no/such/place", background=True)


def test_an_unknown_user_is_refused(sandbox: Sandbox) -> None:
    with pytest.raises(AuthenticationException):
        sandbox.commands.run("true", user="nobody_of_that_name")


def test_output_arrives_while_the_command_runs(sandbox: Sandbox) -> None:
    arrived: list[float] = []
    sandbox.commands.run(
        "for i in 1 2 3; do echo $i; sleep 0.3; done", on_stdout=lambda _: arrived.append(time.monotonic())
    )
    end = time.monotonic()
    assert len(arrived) == 3
    assert end - arrived[0] > 0.8
    assert arrived[1] - arrived[0] > 0.2


def test_a_silent_event_is_delivered_at_once(sandbox: Sandbox) -> None:
    """G48: a short event followed by silence reaches the callback without delay."""
    seen = threading.Event()
    handle = sandbox.commands.run("read x; echo $x; sleep 100", background=True, stdin=True,
                                  on_stdout=lambda _: seen.set())  # fmt: skip
    before = time.monotonic()
    handle.send_stdin("ping\n")
    assert seen.wait(5)
    assert time.monotonic() - before < 0.5
    handle.kill()


def test_a_timeout_kills_the_command_and_everything_it_started(sandbox: Sandbox) -> None:
    """G6: no descendant is left, in the same session or not; the error has the output so far."""
    before = time.monotonic()
    with pytest.raises(CommandTimeoutException) as caught:
        sandbox.commands.run("echo begun; setsid sleep 54321 & sleep 54321; echo never", timeout=1)
    assert 1 <= time.monotonic() - before < 3
    assert caught.value.stdout == "begun\n"
    assert caught.value.stderr == ""
    assert caught.value.clock == "timeout"
    until(lambda: not sleeping(sandbox, "54321"))
    assert sandbox.commands.list() == []


def test_timeouts_are_of_one_kind_every_time(sandbox: Sandbox) -> None:
    """G3: the server's deadline and the client's never race."""
    with ThreadPoolExecutor(10) as pool:
        runs = [pool.submit(sandbox.commands.run, "sleep 100", timeout=0.3) for _ in range(30)]
        assert {type(run.exception(60)) for run in runs} == {CommandTimeoutException}


def test_a_background_command_outlives_its_timeout(sandbox: Sandbox) -> None:
    """G8: the handle stops following, the command runs on and can be followed again."""
    handle = sandbox.commands.run("echo begun; read x; echo got $x", background=True, stdin=True, timeout=1)
    with pytest.raises(CommandTimeoutException) as caught:
        handle.wait()
    assert caught.value.stdout == "begun\n"
    assert [process.pid for process in sandbox.commands.list()] == [handle.pid]
    again = sandbox.commands.connect(handle.pid)
    again.send_stdin("it\n")
    assert again.wait().stdout == "got it\n"


def test_standard_input_can_be_fed_and_closed(sandbox: Sandbox) -> None:
    handle = sandbox.commands.run("cat; echo end", background=True, stdin=True)
    handle.send_stdin("text \u20ac\n")
    handle.send_stdin(b"bytes\n")
    sandbox.commands.send_stdin(handle.pid, "by id\n")
    handle.close_stdin()
    assert handle.wait().stdout == "text \u20ac\nbytes\nby id\nend\n"


def test_much_input_comes_out_whole(sandbox: Sandbox) -> None:
    data = os.urandom(3_000_000)
    handle = sandbox.commands.run("cat", background=True, stdin=True)
    handle.send_stdin(data)
    handle.close_stdin()
    handle.wait()
    assert handle.stdout_bytes == data


def test_without_stdin_a_command_reads_the_end_at_once(sandbox: Sandbox) -> None:
    """G13."""
    assert sandbox.commands.run("cat; echo end", timeout=10).stdout == "end\n"
    handle = sandbox.commands.run("sleep 100", background=True)
    with pytest.raises(InvalidArgumentException, match="stdin=True"):
        handle.send_stdin("x")
    with pytest.raises(SandboxException):
        sandbox.commands.send_stdin(handle.pid, "x")
    handle.kill()


def test_input_to_a_command_that_is_gone_is_not_found(sandbox: Sandbox) -> None:
    for call in (
        lambda: sandbox.commands.send_stdin(999_999, "x"),
        lambda: sandbox.commands.close_stdin(999_999),
        lambda: sandbox.commands.connect(999_999),
    ):
        with pytest.raises(NotFoundException):
            call()
    assert sandbox.commands.kill(999_999) is False


def test_what_runs_is_listed(sandbox: Sandbox) -> None:
    assert sandbox.commands.list() == []
    handle = sandbox.commands.run("sleep 100", background=True, envs={"A": "b"}, cwd="/tmp")
    (process,) = sandbox.commands.list()
    assert process.pid == handle.pid
    assert process.cmd == "/bin/bash"
    assert process.args == ["-l", "-c", "sleep 100"]
    assert process.envs == {"A": "b"}
    assert process.cwd == "/tmp"
    assert process.tag is None
    assert handle.kill() is True
    with pytest.raises(CommandExitException):
        handle.wait(timeout=10)
    assert handle.exit_code == -1
    assert handle.kill() is False
    assert sandbox.commands.list() == []


def test_killing_frees_who_waits(sandbox: Sandbox) -> None:
    handle = sandbox.commands.run("sleep 1000", background=True, check=False)
    with ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(handle.wait)
        time.sleep(0.1)
        assert handle.kill()
        assert waiting.result(5).exit_code == -1


def test_waiting_is_bounded_by_its_own_timeout(sandbox: Sandbox) -> None:
    handle = sandbox.commands.run("echo x; sleep 1000", background=True)
    before = time.monotonic()
    with pytest.raises(TimeoutException):
        handle.wait(timeout=0.5)
    assert 0.5 <= time.monotonic() - before < 1.5
    assert handle.poll() is None
    assert handle.stdout == "x\n"
    handle.kill()


def test_handles_follow_one_command_together(sandbox: Sandbox) -> None:
    first = sandbox.commands.run("read x; seq 1000", background=True, stdin=True)
    second = sandbox.commands.connect(first.pid)
    first.send_stdin("go\n")
    expected = "".join(f"{n}\n" for n in range(1, 1001))
    assert first.wait().stdout == expected
    assert second.wait().stdout == expected


def test_a_handle_that_is_left_does_not_hold_up_the_others(sandbox: Sandbox) -> None:
    """G10, G11: the output goes on to those who still read."""
    first = sandbox.commands.run("read x; head -c 20000000 /dev/zero", background=True, stdin=True)
    second = sandbox.commands.connect(first.pid, retain_output=False)
    first.disconnect()
    second.send_stdin("go\n")
    total = sum(len(out or "") for out, _, _ in second)
    assert total == 20_000_000
    assert second.exit_code == 0


def test_an_iteration_in_bounded_memory_gets_everything(sandbox: Sandbox) -> None:
    handle = sandbox.commands.run("seq 2000000", background=True, retain_output=False)
    time.sleep(0.5)
    text = "".join(out or "" for out, _, _ in handle)
    assert text == "".join(f"{n}\n" for n in range(1, 2_000_001))
    assert handle.wait().truncated


def test_iterating_gives_the_pieces_as_they_come(sandbox: Sandbox) -> None:
    handle = sandbox.commands.run("echo out; sleep 0.2; echo err >&2", background=True)
    assert list(handle) == [("out\n", None, None), (None, "err\n", None)]
    assert list(handle) == [("out\n", None, None), (None, "err\n", None)]


def test_leaving_the_block_ends_the_command(sandbox: Sandbox) -> None:
    with sandbox.commands.run("sleep 98765", background=True) as handle:
        assert sandbox.commands.list()
        with sandbox.commands.connect(handle.pid):
            pass
        assert sandbox.commands.list()
    until(lambda: not sandbox.commands.list())
    assert not sleeping(sandbox, "98765")


def test_binary_output_comes_as_it_is(sandbox: Sandbox) -> None:
    """G15."""
    handle = sandbox.commands.run("head -c 1000000 /dev/urandom | tee random", background=True)
    handle.wait()
    assert handle.stdout_bytes == sandbox.files.read("random", format="bytes")
    text = "\u00e4\u20ac\U0001f600" * 100_000
    sandbox.files.write("text", text)
    assert sandbox.commands.run("cat text").stdout == text


def test_much_output_comes_whole(sandbox: Sandbox) -> None:
    result = sandbox.commands.run("seq 1000000; seq 1000 >&2")
    assert result.stdout == "".join(f"{n}\n" for n in range(1, 1_000_001))
    assert result.stderr == "".join(f"{n}\n" for n in range(1, 1001))


def test_one_long_line_passes(sandbox: Sandbox) -> None:
    """G39: 8 MiB without a break."""
    assert sandbox.commands.run("head -c 8388608 /dev/zero | tr '\\0' x").stdout == "x" * 8_388_608


def test_shell_text_goes_through_as_written(sandbox: Sandbox) -> None:
    text = 'it\'s "quoted" $HOME `x` \\ \u00e4\n\ttab'
    sandbox.files.write("t", text)
    assert sandbox.commands.run("cat <<'EOF'\n" + text + "\nEOF").stdout == text + "\n"


def test_run_returns_when_a_daemon_is_left_behind(sandbox: Sandbox) -> None:
    """G56: a command that leaves a process with its own output behind ends all the same."""
    before = time.monotonic()
    sandbox.commands.run("sleep 33333 >/dev/null 2>&1 </dev/null &", timeout=20)
    assert time.monotonic() - before < 5
    assert sleeping(sandbox, "33333")


@pytest.mark.parametrize("how", ["run", "wait", "write"])
def test_ctrl_c_is_felt_at_once(sandbox: Sandbox, transport: str, how: str) -> None:
    """G41: in run, wait and write: KeyboardInterrupt within 0.5 s, and a foreground command is killed."""
    code = """
import os, signal, sys, threading, time
from sandbox_sync import Sandbox
sandbox = Sandbox.connect(sys.argv[1])
how = sys.argv[2]
pressed = []
def press():
    time.sleep(1)
    pressed.append(time.monotonic())
    os.kill(os.getpid(), signal.SIGINT)
handle = sandbox.commands.run("sleep 77777", background=True) if how == "wait" else None
threading.Thread(target=press, daemon=True).start()
try:
    if how == "run":
        sandbox.commands.run("sleep 66666", timeout=0)
    elif how == "wait":
        handle.wait()
    else:
        sandbox.files.write("never", iter(lambda: time.sleep(0.05) or b"x", b""))
except KeyboardInterrupt:
    print(time.monotonic() - pressed[0])
    sys.exit(130)
"""
    said = subprocess.run(
        [sys.executable, "-c", code, sandbox.sandbox_id, how], capture_output=True, text=True, timeout=60
    )
    assert said.returncode == 130, said.stderr
    assert float(said.stdout) < 0.5
    until(lambda: not sleeping(sandbox, "66666"))
    if how == "wait":
        assert sleeping(sandbox, "77777")


def test_a_program_that_ends_leaves_its_background_commands(sandbox: Sandbox, transport: str) -> None:
    code = """
import sys
from sandbox_sync import Sandbox
handle = Sandbox.connect(sys.argv[1]).commands.run("sleep 88888", background=True, on_stdout=print)
print(handle.pid)
"""
    said = subprocess.run(
        [sys.executable, "-W", "error", "-c", code, sandbox.sandbox_id],
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert (said.returncode, said.stderr) == (0, "")
    assert [process.pid for process in sandbox.commands.list()] == [int(said.stdout)]
    assert sandbox.commands.kill(int(said.stdout))
