"""Commands in real sandboxes: what they are given, and how they end."""

from __future__ import annotations

import shlex
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from sandbox_sync import (
    AuthenticationException,
    CommandExitException,
    InvalidArgumentException,
    Sandbox,
)
from tests.live.command_tools import sleeping, until


@pytest.mark.documented("Commands.run[foreground]")
def test_a_command_runs_as_the_user_in_the_users_home(sandbox: Sandbox) -> None:
    result = sandbox.commands.run("whoami; pwd; echo problem >&2")
    assert result.stdout == "user\n/home/user\n"
    assert result.stderr == "problem\n"
    assert (result.exit_code, result.error, result.truncated) == (0, None, False)


def test_the_shell_is_a_login_shell_of_bash(sandbox: Sandbox) -> None:
    sandbox.files.write(".bash_profile", "export GREETING=hello\n")
    script = "echo $GREETING $BASH; shopt -q login_shell && echo login; a=(1 2); echo ${a[1]}"
    assert sandbox.commands.run(script).stdout == "hello /bin/bash\nlogin\n2\n"


@pytest.mark.documented("Commands.run[foreground]")
def test_the_environment_is_the_sandboxes_and_the_commands_own(server_env: object, transport: str) -> None:
    with Sandbox.create(envs={"A": "sandbox", "B": "sandbox"}) as sandbox:
        script = 'echo "$A|$B|$C|$HOME|$USER|$E2B_SANDBOX|$E2B_SANDBOX_ID"'
        said = sandbox.commands.run(script, envs={"B": "command", "C": "1 2 \u00e4\n$x"}).stdout
        assert said == f"sandbox|command|1 2 \u00e4\n$x|/home/user|user|true|{sandbox.sandbox_id}\n"
        assert sandbox.commands.run('echo "$B|$C"').stdout == "sandbox|\n"


@pytest.mark.documented("Commands.run[foreground]")
def test_the_user_can_be_chosen(sandbox: Sandbox) -> None:
    assert sandbox.commands.run("whoami; pwd; id -u", user="root").stdout == "root\n/root\n0\n"
    assert sandbox.commands.run("whoami", user="user").stdout == "user\n"
    with sandbox.commands.run("whoami; sleep 100", user="root", background=True) as handle:
        assert next(iter(handle))[0] == "root\n"
    with pytest.raises(AuthenticationException):
        sandbox.commands.run("true", user="nobody_of_that_name")


@pytest.mark.documented("Commands.run[foreground]")
@pytest.mark.parametrize("background", [False, True])
def test_the_directory_can_be_chosen(sandbox: Sandbox, background: bool) -> None:
    sandbox.commands.run("mkdir -p 'd/e f'")
    where = {
        None: "/home/user",
        "": "/home/user",
        "~": "/home/user",
        "~/d": "/home/user/d",
        "d/e f": "/home/user/d/e f",
        ".": "/home/user",
        "/tmp": "/tmp",
    }
    for cwd, expected in where.items():
        if background:
            assert sandbox.commands.run("pwd", True, cwd=cwd).wait(timeout=10).stdout == f"{expected}\n"
        else:
            assert sandbox.commands.run("pwd", cwd=cwd).stdout == f"{expected}\n"
    assert sandbox.commands.run("pwd", cwd="~", user="root").stdout == "/root\n"
    for missing in ("/no/such/place", "no/such/place", "~/no/such/place"):
        with pytest.raises(InvalidArgumentException, match="no/such/place"):
            sandbox.commands.run("true", background, cwd=missing)  # type: ignore[call-overload]
    assert sandbox.commands.list() == []


def test_shell_text_goes_through_as_written(sandbox: Sandbox) -> None:
    """G56: heredocs, quotes and several lines."""
    text = 'it\'s "quoted" $HOME `x` \\ \u00e4\n\ttab\n'
    assert sandbox.commands.run("cat <<'EOF'\n" + text + "EOF").stdout == text
    assert (
        sandbox.commands.run('cat <<EOF\n$((1 + 1)) "$USER"\nEOF\necho after').stdout == '2 "user"\nafter\n'
    )
    assert sandbox.commands.run("cat <<-'A' && cat <<'B'\n\tone\n\tA\ntwo\nB").stdout == "one\ntwo\n"
    script = "python3 - <<'EOF'\nimport sys\nfor n in range(3):\n    print(n)\nsys.exit(4)\nEOF"
    result = sandbox.commands.run(script, check=False, timeout=20)
    assert (result.stdout, result.exit_code) == ("0\n1\n2\n", 4)
    assert sandbox.commands.run(f"printf %s {shlex.quote(text)}").stdout == text
    long = "x" * 100_000
    assert sandbox.commands.run(f": {long}; echo done").stdout == "done\n"


@pytest.mark.documented("Commands.run[foreground]")
@pytest.mark.parametrize("code", [1, 2, 42, 126, 127, 128 + 9, 255])
def test_an_exit_code_is_an_error_that_says_everything(sandbox: Sandbox, code: int) -> None:
    with pytest.raises(CommandExitException) as caught:
        sandbox.commands.run(f"echo out; echo err >&2; exit {code}")
    error = caught.value
    assert (error.exit_code, error.stdout, error.stderr) == (code, "out\n", "err\n")
    assert error.error == f"exit status {code}"
    assert error.sandbox_id == sandbox.sandbox_id
    assert str(code) in str(error)
    assert "err" in str(error)


def test_a_failing_command_raises_unless_told_otherwise(sandbox: Sandbox) -> None:
    """G14: run(check=False) returns exit_code != 0 without raising; the default is the documented one."""
    result = sandbox.commands.run("echo out; echo err >&2; exit 42", check=False)
    assert (result.exit_code, result.stdout, result.stderr) == (42, "out\n", "err\n")
    assert result.error == "exit status 42"
    strict = sandbox.commands.run("read x; exit 3", background=True, stdin=True)
    lenient = sandbox.commands.connect(strict.pid, check=False)
    strict.send_stdin("\n")
    assert lenient.wait(timeout=10).exit_code == 3
    for _ in range(2):
        with pytest.raises(CommandExitException) as caught:
            strict.wait(timeout=10)
        assert caught.value.exit_code == 3
    assert sandbox.commands.run("exit 5", background=True, check=False).wait(timeout=10).exit_code == 5


def test_a_missing_program_is_an_exit_code(sandbox: Sandbox) -> None:
    result = sandbox.commands.run("no_such_program_anywhere", check=False)
    assert result.exit_code == 127
    assert "no_such_program_anywhere" in result.stderr


@pytest.mark.parametrize(("signal", "name"), [("KILL", "killed"), ("TERM", "terminated"), ("SEGV", "segmen")])
def test_a_signal_is_minus_one_and_named(sandbox: Sandbox, signal: str, name: str) -> None:
    result = sandbox.commands.run(f"echo before; kill -{signal} $$", check=False)
    assert (result.exit_code, result.stdout) == (-1, "before\n")
    assert result.error is not None
    assert name in result.error
    with pytest.raises(CommandExitException, match=name) as caught:
        sandbox.commands.run(f"kill -{signal} $$")
    assert (caught.value.exit_code, caught.value.error) == (-1, result.error)


@pytest.mark.documented("Commands.run[foreground]")
def test_output_arrives_while_the_command_runs(sandbox: Sandbox) -> None:
    main = threading.current_thread()
    arrived: list[tuple[str, float]] = []

    def on_output(text: str) -> None:
        assert threading.current_thread() is main
        arrived.append((text, time.monotonic()))

    result = sandbox.commands.run(
        "for i in 1 2 3; do echo $i; sleep 0.3; done; echo end >&2", on_stdout=on_output, on_stderr=on_output
    )
    assert [text for text, _ in arrived] == ["1\n", "2\n", "3\n", "end\n"]
    assert arrived[3][1] - arrived[0][1] > 0.8
    assert arrived[1][1] - arrived[0][1] > 0.2
    assert (result.stdout, result.stderr) == ("1\n2\n3\n", "end\n")


@pytest.mark.documented("Commands.run[foreground]")
def test_a_foreground_callback_that_raises_ends_the_command(sandbox: Sandbox) -> None:
    def on_stdout(text: str) -> None:
        raise KeyError(text)

    with pytest.raises(KeyError, match="begun"):
        sandbox.commands.run("echo begun; sleep 24680 & sleep 24680", timeout=0, on_stdout=on_stdout)
    until(lambda: not sleeping(sandbox, "24680"))  # the kill holds nobody up for longer than a moment
    until(lambda: sandbox.commands.list() == [])


def test_a_callback_can_use_the_sandbox(sandbox: Sandbox) -> None:
    said: list[str] = []

    def on_stdout(text: str) -> None:
        sandbox.files.write("seen", text)
        said.append(sandbox.commands.run("cat seen").stdout)
        (process,) = sandbox.commands.list()
        assert sandbox.commands.kill(process.pid)

    result = sandbox.commands.run("echo hello; sleep 1000", check=False, timeout=0, on_stdout=on_stdout)
    assert said == ["hello\n"]
    assert result.error == "signal: killed"


@pytest.mark.documented("Commands.list")
def test_what_runs_is_listed(sandbox: Sandbox) -> None:
    assert sandbox.commands.list() == []
    handle = sandbox.commands.run("sleep 100", background=True, envs={"A": "b"}, cwd="/tmp")
    other = sandbox.commands.run("sleep 101", background=True)
    listed = {process.pid: process for process in sandbox.commands.list()}
    assert set(listed) == {handle.pid, other.pid}
    process = listed[handle.pid]
    assert process.cmd == "/bin/bash"
    assert process.args == ["-l", "-c", "sleep 100"]
    assert process.envs == {"A": "b"}
    assert process.cwd == "/tmp"
    assert process.tag is None
    assert listed[other.pid].cwd is None
    assert sandbox.commands.kill(other.pid) is True
    assert handle.kill() is True
    with pytest.raises(CommandExitException):
        handle.wait(timeout=10)
    assert sandbox.commands.list() == []


@pytest.mark.documented("Commands.kill")
def test_a_finished_command_cannot_be_killed(sandbox: Sandbox) -> None:
    handle = sandbox.commands.run("true", background=True)
    assert handle.wait(timeout=10).exit_code == 0
    assert handle.kill() is False
    assert sandbox.commands.kill(handle.pid) is False
    assert handle.wait().exit_code == 0


def test_many_threads_get_each_their_own_output(sandbox: Sandbox) -> None:
    """G16: no cross-talk, commands, files and kills mixed; 64 threads for seconds, in place of a minute."""

    def work(number: int) -> None:
        for turn in range(4):
            nonce = f"{number}-{turn}"
            sandbox.files.write(f"file-{nonce}", nonce)
            assert sandbox.commands.run(f"cat file-{nonce}; echo {nonce} >&2").stdout == nonce
            handle = sandbox.commands.run(f"echo {nonce}; sleep 1000", background=True, check=False)
            assert next(iter(handle))[0] == f"{nonce}\n"
            assert handle.kill()
            assert handle.wait(timeout=20).error == "signal: killed"
            assert sandbox.files.read(f"file-{nonce}") == nonce

    with ThreadPoolExecutor(64) as pool:
        for one in [pool.submit(work, number) for number in range(64)]:
            one.result(60)
    assert sandbox.commands.list() == []


def test_a_command_that_ended_with_its_sandbox_is_not_reported_as_left(
    sandbox: Sandbox, caplog: pytest.LogCaptureFixture
) -> None:
    class Enough(Exception):
        pass

    def end(_: str) -> None:
        sandbox.kill()
        raise Enough

    with pytest.raises(Enough):
        sandbox.commands.run("echo begun; sleep 1000", on_stdout=end)
    for thread in threading.enumerate():
        if thread.name == "sandbox-sync-kill":
            thread.join(20)
    assert "was not killed" not in caplog.text
