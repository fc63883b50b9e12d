"""sudo in boxes where the host's own can't work: what scripts and people at terminals use of it."""

from __future__ import annotations

import asyncio
import os
import stat

import pytest

from sandbox_local.isolation import launcher
from sandbox_local.isolation.base import Command, Exit
from tests.live.boxes import a_box, finish, in_loop, read_all, read_some, run, shell


def pretend(monkeypatch: pytest.MonkeyPatch, sudo: str) -> None:
    """Have launchers look for the host's sudo at another path."""
    before, _, after = launcher._BOOTSTRAP.partition("zygote.main")
    assert after
    monkeypatch.setattr(launcher, "_BOOTSTRAP", f"{before}zygote._SUDO = {sudo!r}; zygote.main{after}")


@pytest.fixture(autouse=True)
def without_sudo(monkeypatch: pytest.MonkeyPatch) -> None:
    """This machine may have one that works in boxes."""
    pretend(monkeypatch, "/nonexistent")


@pytest.mark.parametrize(
    ("script", "stdout", "code"),
    [
        ("sudo id -u", "0\n", 0),
        ("sudo -n -- id -un", "root\n", 0),
        ("sudo -u user id -un", "user\n", 0),
        ("sudo --user=www-data id -un", "www-data\n", 0),
        ("sudo -g users id -gn", "users\n", 0),
        ("sudo sudo sudo id -u", "0\n", 0),
        ("sudo -v && sudo -k && echo yes", "yes\n", 0),
        ("cd /tmp && sudo pwd", "/tmp\n", 0),
        ("sudo -D /etc pwd", "/etc\n", 0),
        ("sudo -i pwd", "/root\n", 0),
        ("sudo -i -u user pwd", "/home/user\n", 0),
        ("sudo -s 'echo $0; id -u'", "", 127),
        ("sudo -i echo 'a  b' '$HOME'", "a  b $HOME\n", 0),
        ("X=1 sudo sh -c 'echo $X-$HOME-$USER-$SUDO_USER'", "-/root-root-user\n", 0),
        ("X=1 sudo -E sh -c 'echo $X-$USER'", "1-root\n", 0),
        ("X=1 Y=2 sudo --preserve-env=X sh -c 'echo $X-$Y'", "1-\n", 0),
        ("sudo X=5 PATH=/bin sh -c 'echo $X $PATH'", "5 /bin\n", 0),
        ("echo data | sudo cat | sudo tr a-z A-Z", "DATA\n", 0),
        ("sudo sh -c 'exit 42'", "", 42),
        ("sudo sh -c 'kill -TERM $$'; echo $?", "143\n", 0),
        ("sudo sh -c 'kill -KILL $$'; echo $?", "137\n", 0),
        ("sudo no-such-program", "", 127),
        ("sudo -u no-such-user id", "", 1),
        ("sudo", "", 1),
        ("sudo --no-such-option id", "", 1),
        ("sudo <&- >&- 2>&- id; echo $?", "0\n", 0),
    ],
)
def test_sudo_does_as_it_does_elsewhere(script: str, stdout: str, code: int) -> None:
    async def work() -> None:
        async with a_box() as box:
            told = await shell(box, script)
            assert (told.stdout, told.exit) == (stdout, Exit(code, None)), told.stderr

    in_loop(work())


def test_only_user_and_root_may_use_it() -> None:
    async def work() -> None:
        async with a_box() as box:
            told = await shell(box, "sudo id -u", user="www-data")
            assert told.exit.code == 1
            assert told.stdout == ""
            assert (await shell(box, "sudo id -u", user="root")).stdout == "0\n"

    if os.geteuid() != 0:
        pytest.skip("with one id outside, all users of a box are the same to its agent")
    in_loop(work())


def test_nothing_else_is_different_where_the_hosts_own_can_work(monkeypatch: pytest.MonkeyPatch) -> None:
    """There nothing of ours has to be in /usr/local, which can be changed all the same."""
    if os.geteuid() != 0:
        pytest.skip("only under root can a program of the host belong to the root of a box")
    setuid = next(
        (path for path in ("/usr/bin/mount", "/usr/bin/su") if os.stat(path).st_mode & stat.S_ISUID), None
    )
    if setuid is None:
        pytest.skip("no program of this machine is setuid, to stand for its sudo")
    pretend(monkeypatch, setuid)

    async def work() -> None:
        async with a_box() as box:
            assert (await shell(box, "ls /usr/local/bin/sudo", user="root")).exit.code != 0, (
                "it is the host's"
            )
            changed = await shell(box, "echo x > /usr/local/bin/new && cat /usr/local/bin/new", user="root")
            assert changed.stdout == "x\n", changed.stderr

    in_loop(work())


def test_signals_reach_the_command_and_its_end_the_caller() -> None:
    async def work() -> None:
        async with a_box() as box:
            script = "trap 'echo caught; exit 9' TERM; echo started; while :; do sleep 0.05; done"
            process = await box.spawn(Command(["sudo", "/bin/sh", "-c", script], "user"))
            assert process.stdout is not None
            assert await read_some(process.stdout) == b"started\n"
            await process.signal(15)
            told = await finish(process)
            assert (told.stdout, told.exit) == ("caught\n", Exit(9, None))

    in_loop(work())


def test_what_sudo_started_is_part_of_the_command_that_used_it() -> None:
    """G6: killing a command ends what it runs as root."""

    async def work() -> None:
        async with a_box() as box:
            process = await box.spawn(Command(["/bin/bash", "-c", "sudo setsid sleep 999 & wait"], "user"))
            while (await run(box, "pgrep", "-x", "sleep")).stdout == "":
                pass
            await process.kill_tree()
            assert (await run(box, "pgrep", "-x", "sleep")).stdout == ""
            await finish(process)

    in_loop(work())


def test_at_a_terminal_only_the_streams_that_are_one_are_the_commands_terminal() -> None:
    async def work() -> None:
        async with a_box() as box:
            script = (
                "sudo sh -c 'tty; [ -t 1 ]; echo $? >&2' > ~/out 2> ~/err; sudo sh -c 'echo seen > /dev/tty'"
            )
            process = await box.spawn(Command(["/bin/bash", "-c", script], "user", pty=(80, 24)))
            assert process.pty is not None
            assert (await read_all(process.pty)).decode() == "seen\r\n"
            assert (await run(box, "cat", "/home/user/out", "/home/user/err")).stdout == "/dev/pts/1\n1\n"

    in_loop(work())


def test_a_root_shell_at_a_terminal_has_job_control_and_the_callers_size() -> None:
    async def work() -> None:
        async with a_box() as box:
            process = await box.spawn(
                Command(["/bin/bash", "--norc"], "user", {"TERM": "xterm"}, pty=(77, 33))
            )
            assert process.pty is not None
            seen = b""

            async def type_and_see(typed: bytes, wanted: bytes) -> None:
                nonlocal seen
                os.write(process.pty or 0, typed)
                while wanted not in seen:
                    seen += await asyncio.wait_for(read_some(process.pty or 0), 10)
                seen = seen.partition(wanted)[2]

            async def until_it_sleeps() -> None:
                while (await run(box, "pgrep", "-x", "-r", "S", "sleep", user="root")).stdout == "":
                    pass

            await type_and_see(b"sudo -s\n", b"# ")
            await type_and_see(b"echo at $(id -u) $(stty size) $(tty)\n", b"at 0 33 77 /dev/pts/1")
            await type_and_see(b"sleep 100\n", b"sleep 100\r\n")
            await until_it_sleeps()
            await type_and_see(b"\x1a", b"Stopped")
            await type_and_see(b"", b"# ")
            await type_and_see(b"fg\n", b"sleep 100\r\n")
            await until_it_sleeps()
            await type_and_see(b"\x03", b"# ")
            await type_and_see(b"echo code $?; exit 5\n", b"code 130")
            await type_and_see(b"", b"$ ")
            await type_and_see(b"echo then $?; exit\n", b"then 5")
            assert await process.exit == Exit(0, None)
            os.close(process.pty)

    in_loop(work())


def test_hostile_requests_harm_neither_the_box_nor_its_agent() -> None:
    program = """
import array, json, os, socket, struct
def ask(body, fds=(), count=None):
    s = socket.socket(socket.AF_UNIX)
    s.connect("/run/sandbox/sudo.sock")
    s.settimeout(1)
    control = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", fds))] if fds else []
    try:
        s.sendmsg([struct.pack("!IB", len(body), len(fds) if count is None else count) + body], control)
        return s.recv(1000)
    except OSError as error:
        return error
good = {"argv": ["id"], "env": {}, "user": "root", "gid": None, "terminal": False}
changes = [{"argv": []}, {"argv": 5}, {"env": {"A": 1}}, {"user": ["x"]}, {"user": "nobody", "gid": -5}]
changes += [{"gid": 2**70}, {"terminal": True}, {"more": 1}]
for change in changes:
    ask(json.dumps({"op": "run", "args": {**good, **change}}).encode(), [0, 1, 2, 0])
for fds in ([], [0], [0, 1, 2], [0, 1, 2, 0, 0]):
    ask(json.dumps({"op": "run", "args": good}).encode(), fds)
for message in ({}, {"op": "signal"}, {"op": "signal", "args": {"signum": 9}}, {"op": []}, {"args": 7}):
    ask(json.dumps(message).encode())
ask(b"\\xff" * 100)
ask(b"[" * 10000)
ask(b"", count=200)
held = []
for _ in range(200):
    held.append(socket.socket(socket.AF_UNIX))
    held[-1].setblocking(False)
    held[-1].connect_ex("/run/sandbox/sudo.sock")
print("done")
"""

    async def work() -> None:
        async with a_box() as box:
            told = await run(box, "python3", "-c", program)
            assert told.stdout.endswith("done\n"), told.stderr
            assert (await shell(box, "sudo id -u")).stdout == "0\n"

    in_loop(work())
