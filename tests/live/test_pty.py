"""Terminals in real sandboxes: what they are given, what is typed and shown, and how they end."""

from __future__ import annotations

import contextvars
import gc
import threading
import time
from collections.abc import Iterator

import pytest

from sandbox_sync import CommandExitException, CommandHandle, PtyHandle, PtySize, Sandbox
from tests.live.command_tools import sleeping, until
from tests.live.terminals import Terminal, terminal

SIZE = PtySize(rows=24, cols=100)


@pytest.mark.documented("Pty.create")
def test_a_terminal_has_all_that_it_was_asked_for(sandbox: Sandbox) -> None:
    seen = Terminal(PtySize(rows=33, cols=111))
    with sandbox.pty.create(
        PtySize(rows=33, cols=111), seen.show, "root", "/tmp", {"GREETING": "hello \u20ac"}, 0, 10
    ) as seen.handle:
        assert isinstance(seen.handle, PtyHandle)
        assert isinstance(seen.handle, CommandHandle)
        assert seen.run("stty size") == "33 111"
        assert seen.run("whoami; pwd; echo $GREETING; tty") == "root\n/tmp\nhello \u20ac\n/dev/pts/0"
        assert "no job control" not in seen.text
        assert "\nroot@" in "\n" + seen.text


@pytest.mark.documented("Pty.create")
def test_a_terminal_by_default_is_a_login_shell_of_the_user_at_home(sandbox: Sandbox) -> None:
    sandbox.files.write(".bash_profile", "export PROFILE=read\n. ~/.bashrc\n")
    with terminal(sandbox) as seen:
        script = "whoami; pwd; echo $PROFILE $BASH $-; shopt -q login_shell && echo login"
        user, home, shell, login = seen.run(script).split("\n")
        assert (user, home, login) == ("user", "/home/user", "login")
        assert shell.startswith("read /bin/bash ")
        assert {"i", "m"} <= set(shell.split()[-1]), "it is interactive and has job control"
        assert seen.run("echo $TERM $LANG $LC_ALL") == "xterm-256color C.UTF-8 C.UTF-8"
        assert seen.run("echo $E2B_SANDBOX_ID") == sandbox.sandbox_id


def test_the_environment_of_a_terminal_can_be_overridden(server_env: object, transport: str) -> None:
    with Sandbox.create(envs={"A": "sandbox", "B": "sandbox", "LANG": "sandbox"}) as sandbox:
        envs = {"TERM": "vt100", "LANG": "C", "LC_ALL": "POSIX", "B": "terminal"}
        with terminal(sandbox, envs=envs) as seen:
            assert seen.run("echo $TERM $LANG $LC_ALL $A $B") == "vt100 C POSIX sandbox terminal"


@pytest.mark.parametrize(("cwd", "expected"), [("~", "/home/user"), ("d/e f", "/home/user/d/e f")])
def test_the_directory_of_a_terminal_can_be_chosen(sandbox: Sandbox, cwd: str, expected: str) -> None:
    sandbox.files.make_dir("d/e f")
    with terminal(sandbox, cwd=cwd) as seen:
        assert seen.run("pwd") == expected


@pytest.mark.documented("Pty.send_stdin")
def test_text_and_bytes_can_be_typed(sandbox: Sandbox) -> None:
    with terminal(sandbox) as seen:
        sandbox.pty.send_stdin(seen.handle.pid, b"echo by''tes\n")
        seen.sees("\nbytes\n")
        sandbox.pty.send_stdin(seen.handle.pid, "echo te''xt\n", request_timeout=5)
        seen.sees("\ntext\n")
        seen.handle.send_stdin(bytearray(b"echo arr''ay\n"))  # type: ignore[arg-type]
        seen.sees("\narray\n")
        seen.handle.send_stdin("echo ente''r\r")
        seen.sees("\nenter\n")


def test_characters_that_come_in_pieces_stay_whole(sandbox: Sandbox) -> None:
    """G15: typed byte by byte, and shown byte by byte."""
    with terminal(sandbox) as seen:
        seen.type("echo re''ady; cat\n")
        seen.sees("\nready")
        for byte in "\u00e4\u20ac\U0001f600\n".encode():
            seen.type(bytes([byte]))
        seen.until(lambda: seen.text.count("\u00e4\u20ac\U0001f600") == 2)
        seen.type("\x03")
        seen.until(lambda: seen.at_prompt)
        seen.type("clear; printf '\\xe2\\x82'; sleep 0.3; printf '\\xac\\n'; printf '\\xff|\\n'\n")
        seen.sees("\u20ac", "\ufffd|")
        assert b"\xe2\x82\xac\r\n\xff|" in seen.shown


def test_what_an_iterable_yields_is_typed(sandbox: Sandbox) -> None:
    def typed() -> Iterator[str | bytes]:
        yield "echo fr"
        yield b"om a gen"
        yield "era''tor\n"

    with terminal(sandbox) as seen:
        sandbox.pty.stream_input(seen.handle.pid, typed())
        seen.sees("\nfrom a generator\n")


@pytest.mark.documented("Pty.resize")
def test_a_resize_is_seen_by_the_shell_and_its_programs(sandbox: Sandbox) -> None:
    with terminal(sandbox) as seen:
        assert seen.run("stty size; tput lines; tput cols") == "24 100\n24\n100"
        seen.resize(PtySize(rows=40, cols=60))
        assert seen.run("stty size; tput lines; tput cols") == "40 60\n40\n60"
        sandbox.pty.resize(seen.handle.pid, PtySize(rows=65535, cols=65535), 10)
        assert seen.run("stty size") == "65535 65535"
        sandbox.pty.resize(seen.handle.pid, size=PtySize(rows=1, cols=1), request_timeout=10)
        sandbox.pty.resize(seen.handle.pid, size=SIZE)
        assert seen.run("stty size") == "24 100"


def test_a_running_program_is_told_of_a_resize(sandbox: Sandbox) -> None:
    sandbox.files.write(
        "told.py",
        "import os, signal\n"
        "def told(*_):\n"
        "    size = os.get_terminal_size()\n"
        "    os.write(1, b'told of %d %d\\n' % (size.lines, size.columns))\n"
        "signal.signal(signal.SIGWINCH, told)\n"
        "os.write(1, b'waiting\\n')\n"
        "while True:\n"
        "    signal.pause()\n",
    )
    with terminal(sandbox) as seen:
        seen.type("python3 told.py\n")
        seen.sees("waiting")
        seen.handle.resize(PtySize(rows=30, cols=90))
        seen.sees("told of 30 90")
        seen.handle.resize(PtySize(rows=31, cols=91), request_timeout=5)
        seen.sees("told of 31 91")


@pytest.mark.documented("Pty.send_stdin")
def test_ctrl_c_interrupts_the_program_and_not_the_shell(sandbox: Sandbox) -> None:
    with terminal(sandbox) as seen:
        seen.type("sleep 4711\n")
        until(lambda: sleeping(sandbox, "4711"))
        seen.type("\x03")
        seen.until(lambda: seen.at_prompt)
        seen.type("echo code $?\n")
        seen.sees("code 130")
        assert not sleeping(sandbox, "4711")
        assert seen.handle.poll() is None


def test_job_control_works(sandbox: Sandbox) -> None:
    with terminal(sandbox) as seen:
        seen.type("sleep 4713\n")
        until(lambda: sleeping(sandbox, "4713"))
        seen.type("\x1a")
        seen.sees("[1]+", "Stopped")
        assert "Stopped" in seen.run("jobs")
        seen.type("fg\n")
        in_front = "ps -C sleep -o stat= | grep -F S+"
        until(lambda: sandbox.commands.run(in_front, check=False).exit_code == 0)
        seen.type("\x03")
        seen.until(lambda: seen.at_prompt)
        assert seen.run("jobs; echo none") == "none"
        assert b"job control" not in seen.shown


def test_ctrl_d_ends_the_shell(sandbox: Sandbox) -> None:
    with terminal(sandbox) as seen:
        seen.type("\x04")
        result = seen.handle.wait(timeout=10)
        assert (result.exit_code, result.stdout, result.stderr, result.error) == (0, "", "", None)
        assert (seen.handle.exit_code, seen.handle.poll(), seen.handle.error) == (0, 0, None)
        assert seen.shown == seen.handle.pty_bytes
    with terminal(sandbox) as seen:
        seen.type("echo re''ady; cat\n")
        seen.sees("\nready")
        seen.handle.close_stdin()  # ends cat
        assert seen.run("echo on") == "on"
        sandbox.pty.close_stdin(seen.handle.pid, request_timeout=5)  # ends the shell
        assert seen.handle.wait(timeout=10).exit_code == 0


@pytest.mark.documented("Sandbox.pty")
def test_the_shells_exit_code_is_told(sandbox: Sandbox) -> None:
    with terminal(sandbox) as seen:
        seen.type("exit 3\n")
        for _ in range(2):
            with pytest.raises(CommandExitException) as caught:
                seen.handle.wait(timeout=10)
            assert (caught.value.exit_code, caught.value.error) == (3, "exit status 3")
    with terminal(sandbox, check=False) as seen:
        lenient = sandbox.pty.connect(seen.handle.pid, check=False)
        seen.type("exit 4\n")
        assert seen.handle.wait(timeout=10).exit_code == 4
        assert lenient.wait(timeout=10).exit_code == 4
    with terminal(sandbox, check=False) as seen:
        seen.type("kill -9 $$\n")
        result = seen.handle.wait(timeout=10)
        assert (result.exit_code, result.error) == (-1, "signal: killed")


@pytest.mark.documented("Pty.kill")
@pytest.mark.parametrize("through", ["pty", "handle", "with"])
def test_a_killed_terminal_takes_its_programs_with_it(sandbox: Sandbox, through: str) -> None:
    """G6: a program in the background and one in a session of its own are gone with the shell."""
    with terminal(sandbox, check=False) as seen:
        seen.type("sleep 4714 & setsid -f sleep 4715; sleep 4716\n")
        until(lambda: all(sleeping(sandbox, mark) for mark in ("4714", "4715", "4716")))
        pid = seen.handle.pid
        if through == "pty":
            assert sandbox.pty.kill(pid) is True
        elif through == "handle":
            assert seen.handle.kill(request_timeout=10) is True
    assert sandbox.pty.kill(pid, request_timeout=10) is False
    assert seen.handle.kill() is False
    assert not sleeping(sandbox, "4714", "4715", "4716")
    if through != "with":
        result = seen.handle.wait(timeout=10)
        assert (result.exit_code, result.error) == (-1, "signal: killed")
    assert sandbox.commands.list() == []


@pytest.mark.documented("Commands.list")
def test_a_terminal_is_listed_among_the_commands(sandbox: Sandbox) -> None:
    assert sandbox.commands.list() == []
    with terminal(sandbox, cwd="/tmp", envs={"A": "b"}) as seen:
        (listed,) = sandbox.commands.list()
        assert (listed.pid, listed.cmd, listed.args) == (seen.handle.pid, "/bin/bash", ["-i", "-l"])
        assert (listed.tag, listed.cwd) == (None, "/tmp")
        assert listed.envs["A"] == "b"
    assert sandbox.commands.list() == []


def test_large_output_arrives_whole(sandbox: Sandbox) -> None:
    shown: list[bytes] = []
    expected = "".join(f"{n}\r\n" for n in range(1, 500_001)).encode()
    with sandbox.pty.create(SIZE, shown.append, envs={"PS1": ""}) as handle:
        handle.send_stdin("stty -echo; echo be''gin; seq 500000; echo e''nd; exit\n")
        assert handle.wait(timeout=60).exit_code == 0
        whole = b"".join(shown)
        assert whole == handle.pty_bytes
        assert whole.partition(b"begin\r\n")[2].partition(b"end\r\n")[0] == expected


def test_large_input_is_typed_whole(sandbox: Sandbox) -> None:
    content = b"".join(b"%08d" % n for n in range(37_500))
    with sandbox.pty.create(SIZE, check=False) as handle:
        handle.send_stdin("stty raw -echo; echo re''ady; head -c 300000 > got; exit\n")
        until(lambda: b"ready" in handle.pty_bytes)
        handle.send_stdin(content)
        assert handle.wait(timeout=30).exit_code == 0
    assert sandbox.files.read("got", format="bytes") == content


def test_a_password_is_not_shown(sandbox: Sandbox) -> None:
    with terminal(sandbox) as seen:
        seen.type("read -s -p 'Password: ' answer; echo; echo length ${#answer}\n")
        seen.until(lambda: seen.text.endswith("Password:"))
        seen.type("hunter2\n")
        seen.sees("length 7")
        seen.type("stty -echo; echo re''ady; read answer; stty echo; echo again ${#answer}\n")
        seen.sees("\nready")
        seen.type("hunter23\n")
        seen.sees("again 8")
        assert b"hunter" not in seen.shown


@pytest.mark.documented("Pty.create")
def test_callbacks_come_in_a_thread_with_the_callers_context(sandbox: Sandbox) -> None:
    variable: contextvars.ContextVar[str] = contextvars.ContextVar("variable")
    variable.set("of the caller")
    threads: set[threading.Thread] = set()
    values: set[str | None] = set()

    def on_data(data: bytes) -> None:
        threads.add(threading.current_thread())
        values.add(variable.get(None))

    with sandbox.pty.create(SIZE, on_data) as handle:
        handle.send_stdin("exit\n")
        handle.wait(timeout=10)
    assert values == {"of the caller"}
    assert len(threads) == 1
    assert threading.current_thread() not in threads


def test_an_error_of_the_callback_is_raised_once_and_the_terminal_goes_on(sandbox: Sandbox) -> None:
    def on_data(data: bytes) -> None:
        raise KeyError("of the callback")

    with sandbox.pty.create(SIZE, on_data) as handle:
        with pytest.raises(KeyError, match="of the callback"):
            handle.wait(timeout=10)
        handle.send_stdin("echo go''es on; exit\n")
        assert handle.wait(timeout=10).exit_code == 0
        assert b"goes on" in handle.pty_bytes


def test_a_terminal_can_be_iterated_over_and_followed_without_callback(sandbox: Sandbox) -> None:
    with sandbox.pty.create(SIZE) as handle:
        shown = b""
        for stdout, stderr, data in handle:
            assert (stdout, stderr) == (None, None)
            assert data is not None
            if b"$ " in data and b"$ " not in shown:
                handle.send_stdin("echo it''erated; exit\n")
            shown += data
        assert b"iterated" in shown
        assert shown == handle.pty_bytes
        later: list[bytes] = []
        assert handle.wait(timeout=5, on_pty=later.append).exit_code == 0
        assert b"".join(later) == shown
        assert (handle.stdout, handle.stderr) == ("", "")


def test_a_terminal_that_was_left_can_be_found_again(sandbox: Sandbox) -> None:
    with terminal(sandbox) as seen:
        assert seen.run("secret=42") == ""
        seen.handle.disconnect()
        again = Terminal(SIZE)
        again.handle = sandbox.pty.connect(seen.handle.pid, again.show, timeout=0, request_timeout=10)
        assert again.handle.pid == seen.handle.pid
        assert isinstance(again.handle, PtyHandle)
        again.type("\n")
        assert again.run("echo $secret") == "42"
        with again.handle:
            pass  # who did not make it does not end it
        assert sandbox.pty.kill(seen.handle.pid) is True


def test_several_can_look_at_one_terminal(sandbox: Sandbox) -> None:
    with terminal(sandbox) as seen:
        others = [Terminal(SIZE) for _ in range(3)]
        for other in others:
            other.handle = sandbox.pty.connect(seen.handle.pid, other.show)
        plain: list[bytes] = []
        as_command = sandbox.commands.connect(seen.handle.pid, on_pty=plain.append)
        others[0].type("echo ty''ped\n")
        for one in (seen, *others):
            one.sees("\ntyped\n")
        until(lambda: b"typed\r\n" in b"".join(plain))
        others[1].type("exit\n")
        for handle in (seen.handle, *(other.handle for other in others), as_command):
            assert handle.wait(timeout=10).exit_code == 0


def test_a_terminal_that_nobody_follows_runs_on_until_it_is_killed(sandbox: Sandbox) -> None:
    handle = sandbox.pty.create(SIZE)
    pid = handle.pid
    handle.send_stdin("while sleep 0.1; do date +%s.%N | tee new; mv new now; done\n")
    until(lambda: sandbox.files.exists("now"))
    del handle
    gc.collect()
    before = sandbox.files.read("now")
    until(lambda: sandbox.files.read("now") not in ("", before))
    assert [listed.pid for listed in sandbox.commands.list()] == [pid]
    begin = time.monotonic()
    assert sandbox.pty.kill(pid)
    assert time.monotonic() - begin < 5
    assert sandbox.commands.list() == []
