"""Commands in real boxes: users, directories, terminals, ends, and everything that descends from them."""

from __future__ import annotations

import asyncio
import fcntl
import os
import signal
import struct
import termios
import time

import pytest

from sandbox_local.isolation.base import Command, Exit, MissingDirectory, UnknownUser
from sandbox_local.isolation.namespace_box import NamespaceBox, NamespaceProcess
from tests.live.boxes import a_box, finish, in_loop, read_all, read_some, run, shell, until


def test_a_command_runs_as_its_user_with_that_users_groups() -> None:
    async def work() -> None:
        async with a_box() as box:
            for user in ("user", "root", "www-data", "nobody"):
                told = await run(box, "id", "-un", user=user, cwd="/")
                assert told.stdout == f"{user}\n", told.stderr
            if os.geteuid() == 0:
                await shell(
                    box, "useradd -m -u 1234 ann; groupadd -g 777 crew; usermod -aG crew ann", user="root"
                )
                told = await run(box, "/bin/sh", "-c", "id -G; pwd; echo $HOME", user="ann")
                assert told.stdout.split() == ["1234", "777", "/home/ann", "/home/ann"]
            with pytest.raises(UnknownUser):
                await run(box, "true", user="nobody-of-that-name")

    in_loop(work())


def test_the_working_directory_is_the_home_or_relative_to_it_or_absolute() -> None:
    async def work() -> None:
        async with a_box() as box:
            await run(box, "mkdir", "/home/user/sub")
            for cwd, seen in {
                "": "/home/user",
                "~//..": "/home",
                "~": "/home/user",
                "sub": "/home/user/sub",
                "/tmp": "/tmp",
            }.items():
                assert (await run(box, "pwd", cwd=cwd)).stdout == f"{seen}\n"
            for missing in ("/nowhere", "nowhere", "/etc/passwd", "/etc/passwd/x"):
                with pytest.raises(MissingDirectory):
                    await run(box, "pwd", cwd=missing)
            if os.geteuid() == 0:
                with pytest.raises(PermissionError):
                    await run(box, "pwd", cwd="/root")

    in_loop(work())


@pytest.mark.parametrize(
    ("argv", "code", "stderr"),
    [
        (["nowhere-to-be-found"], 127, "nowhere-to-be-found: command not found\n"),
        (["/no/such/program"], 127, "/no/such/program: No such file or directory\n"),
        (["/etc/passwd"], 126, "/etc/passwd: Permission denied\n"),
        (["/tmp"], 126, "/tmp: Permission denied\n"),
        ([""], 127, ": command not found\n"),
    ],
)
def test_a_program_that_cannot_run_is_reported_as_by_a_shell(argv: list[str], code: int, stderr: str) -> None:
    async def work() -> None:
        async with a_box() as box:
            assert await run(box, *argv) == (Exit(code, None), "", stderr)

    in_loop(work())


def test_a_script_without_a_first_line_runs_in_a_shell() -> None:
    async def work() -> None:
        async with a_box() as box:
            await shell(box, "mkdir ~/bin; echo 'echo \"$@\"' > ~/bin/script; chmod +x ~/bin/script")
            told = await run(box, "script", "a b", "c", envs={"PATH": "/home/user/bin:/bin"})
            assert told.stdout == "a b c\n", told.stderr

    in_loop(work())


@pytest.mark.parametrize(
    "command", [Command([], "user"), Command(["a\0b"], "user"), Command(["a"], "user", {"A=B": "C"})]
)
def test_what_no_process_can_have_is_refused_before_anything_starts(command: Command) -> None:
    async def work() -> None:
        async with a_box() as box:
            with pytest.raises(ValueError, match=r"program|NUL|named"):
                await box.spawn(command)

    in_loop(work())


def test_a_command_inherits_nothing_but_its_three_streams() -> None:
    async def work() -> None:
        async with a_box() as box:
            told = await run(box, "python3", "-c", "import os; print(sorted(os.listdir('/proc/self/fd')))")
            assert told.stdout == "['0', '1', '2', '3']\n", "3 is the listing itself"
            status = (await run(box, "cat", "/proc/self/status")).stdout
            for line in ("SigBlk:\t0000000000000000", "SigIgn:\t0000000000000000", "Umask:\t0022"):
                assert line in status
            session = await run(box, "python3", "-c", "import os; print(os.getsid(0) == os.getpid())")
            assert session.stdout == "True\n"

    ignored = signal.signal(signal.SIGUSR2, signal.SIG_IGN)  # programs inherit that, unless it is undone
    try:
        in_loop(work())
    finally:
        signal.signal(signal.SIGUSR2, ignored)


def test_codes_and_signals_of_ends_are_told() -> None:
    async def work() -> None:
        async with a_box() as box:
            assert (await shell(box, "exit 255")).exit == Exit(255, None)
            assert (await shell(box, "kill -TERM $$")).exit == Exit(None, signal.SIGTERM)
            process = await box.spawn(Command(["sleep", "100"], "user"))
            assert await process.signal(signal.SIGUSR1) is True
            assert (await finish(process)).exit == Exit(None, signal.SIGUSR1)
            assert await process.signal(signal.SIGTERM) is False

    in_loop(work())


def test_arguments_and_variables_of_two_megabytes_arrive() -> None:
    async def work() -> None:
        async with a_box() as box:
            arguments = ["x" * 100_000] * 10
            variables = {f"V{number}": "é" * 50_000 for number in range(9)}
            program = "import os, sys; print(sum(map(len, sys.argv[1:])), len(os.environ['V8']))"
            told = await run(box, "python3", "-c", program, *arguments, envs=variables)
            assert told.stdout == "1000000 50000\n", told.stderr
            raw = os.fsdecode(b"\xff\xfe\n")
            program = f"import os; print(os.environb[b'R'] == {os.fsencode(raw)!r})"
            assert (await run(box, "python3", "-c", program, envs={"R": raw})).stdout == "True\n"
            too_long = await run(box, "true", "x" * (1 << 18))
            assert (too_long.exit.code, too_long.stderr) == (126, "true: Argument list too long\n")

    in_loop(work())


def test_standard_input_is_empty_unless_it_is_asked_for() -> None:
    async def work() -> None:
        async with a_box() as box:
            assert (await run(box, "cat")).stdout == ""
            process = await box.spawn(Command(["cat"], "user", stdin=True))
            assert process.stdin is not None
            os.write(process.stdin, b"hello")
            os.close(process.stdin)
            assert (await finish(process)).stdout == "hello"
            reopened = await shell(box, "echo out > /dev/stdout; echo err > /proc/self/fd/2")
            assert (reopened.stdout, reopened.stderr) == ("out\n", "err\n")

    in_loop(work())


def test_a_terminal_has_size_job_control_and_an_owner() -> None:
    async def work() -> None:
        async with a_box() as box:
            script = "tty; stty size; stat -c %U $(tty); ps -o tty= $$; exec cat"
            process = await box.spawn(Command(["/bin/bash", "-c", script], "user", pty=(91, 37)))
            assert process.pty is not None
            assert (process.stdin, process.stdout, process.stderr) == (None, None, None)
            seen = b""
            while seen.count(b"\n") < 4:
                seen += await read_some(process.pty)
            name, size, owner, of_process = (
                seen.split()[0],
                seen.split()[1:3],
                seen.split()[3],
                seen.split()[4],
            )
            assert (name, size, owner, of_process) == (b"/dev/pts/0", [b"37", b"91"], b"user", b"pts/0")
            fcntl.ioctl(process.pty, termios.TIOCSWINSZ, struct.pack("HHHH", 10, 20, 0, 0))
            os.write(process.pty, b"echoed\n")
            seen = b""
            while seen.count(b"echoed\r\n") < 2:  # by the terminal, then by cat
                seen += await read_some(process.pty)
            os.write(process.pty, b"\x03")
            assert await process.exit == Exit(None, signal.SIGINT)
            os.close(process.pty)

    in_loop(work())


def test_hanging_up_a_terminal_ends_what_runs_at_it() -> None:
    async def work() -> None:
        async with a_box() as box:
            process = await box.spawn(Command(["sleep", "100"], "user", pty=(80, 24)))
            assert process.pty is not None
            os.close(process.pty)
            assert await process.exit == Exit(None, signal.SIGHUP)

    in_loop(work())


_DAEMON = """
import os, sys, time
for kind in ("child", "session", "daemon", "ignorant"):
    if os.fork() == 0:
        if kind != "child": os.setsid()
        if kind == "daemon" and os.fork(): os._exit(0)
        if kind == "ignorant":
            import signal
            for number in (1, 2, 15, 18, 20): signal.signal(number, signal.SIG_IGN)
        time.sleep(1000)
        os._exit(0)
print("started", flush=True)
"""


async def _alive(box: NamespaceBox) -> list[str]:
    listing = await run(box, "ps", "-e", "-o", "stat=,args=", user="root")
    lines = [line.split(maxsplit=1) for line in listing.stdout.splitlines()]
    own = ("sandbox", "ps -e -o stat=,args=")
    return [args for state, args in lines if args not in own and not state.startswith("Z")]


async def _started(process: NamespaceProcess) -> None:
    assert process.stdout is not None
    assert await read_some(process.stdout) == b"started\n"


def _forget(process: NamespaceProcess) -> None:
    for fd in (process.stdout, process.stderr):
        assert fd is not None
        os.close(fd)


@pytest.mark.parametrize("leader_lives", [True, False])
def test_killing_a_tree_leaves_nothing_that_descends_from_it_and_all_else(leader_lives: bool) -> None:
    """G6: sessions, daemons, orphans and what ignores signals end with their command, and nothing else."""

    async def work() -> None:
        async with a_box() as box:
            bystander = await box.spawn(Command(["sleep", "999"], "user"))
            program = _DAEMON + ("time.sleep(1000)" if leader_lives else "")
            tree = await box.spawn(Command(["python3", "-c", program], "user"))
            await _started(tree)
            if not leader_lives:
                assert await tree.exit == Exit(0, None)
            assert len(await _alive(box)) == 1 + 4 + leader_lives
            await tree.kill_tree()
            assert await _alive(box) == ["sleep 999"]
            assert await asyncio.wait_for(tree.exit, 5) == (Exit(None, 9) if leader_lives else Exit(0, None))
            await tree.kill_tree()
            assert not bystander.exit.done()
            _forget(tree)
            _forget(bystander)

    in_loop(work())


def test_killing_a_tree_ends_one_that_grows_faster_than_it_is_looked_at() -> None:
    async def work() -> None:
        async with a_box() as box:
            bomb = await box.spawn(
                Command(["/bin/bash", "-c", "ulimit -u 300; echo started; b() { b & b; }; b"], "user")
            )
            await _started(bomb)
            await asyncio.sleep(0.2)
            await asyncio.wait_for(bomb.kill_tree(), 20)
            assert await _alive(box) == []
            _forget(bomb)

    in_loop(work())


def test_killing_a_tree_frees_its_port_at_once() -> None:
    """G6: a server that daemonized holds no port any more when the call returns."""
    serve = (
        "import os, socket, time\n"
        "if os.fork() == 0:\n"
        "    os.setsid()\n"
        "    s = socket.socket(); s.bind(('127.0.0.1', 8000)); s.listen(); print('started', flush=True)\n"
        "    time.sleep(1000)\n"
    )

    async def work() -> None:
        async with a_box() as box:
            for _ in range(3):
                server = await box.spawn(Command(["python3", "-c", serve], "user"))
                await _started(server)
                connection = await box.connect(8000)
                connection.close()
                await server.kill_tree()
                with pytest.raises(ConnectionRefusedError):
                    await box.connect(8000)
                _forget(server)

    in_loop(work())


def test_connections_reach_a_port_of_the_box() -> None:
    async def work() -> None:
        async with a_box() as box:
            echo = (
                "import socket\n"
                "s = socket.socket(); s.bind(('0.0.0.0', 80)); s.listen(); print('started', flush=True)\n"
                "c, _ = s.accept(); c.sendall(c.recv(100).upper())\n"
            )
            server = await box.spawn(Command(["python3", "-c", echo], "root"))
            await _started(server)
            with await box.connect(80) as sock:
                loop = asyncio.get_running_loop()
                await loop.sock_sendall(sock, b"hello")
                assert await loop.sock_recv(sock, 100) == b"HELLO"
            await server.exit
            _forget(server)

    in_loop(work())


def test_a_frozen_box_stands_still_and_goes_on_where_it_was() -> None:
    async def work() -> None:
        async with a_box() as box:
            ticker = await box.spawn(
                Command(["/bin/bash", "-c", "while :; do echo; sleep 0.02; done"], "user")
            )
            assert ticker.stdout is not None
            assert await read_some(ticker.stdout)
            await box.freeze()
            fcntl.ioctl(ticker.stdout, termios.FIONREAD, waiting := bytearray(4))
            if any(waiting):
                os.read(ticker.stdout, 1 << 16)
            await asyncio.sleep(0.2)
            with pytest.raises(BlockingIOError):
                os.read(ticker.stdout, 1 << 16)
            await box.thaw()
            assert await read_some(ticker.stdout)
            await box.freeze()
            await ticker.kill_tree()
            assert await ticker.exit == Exit(None, 9)
            _forget(ticker)

    in_loop(work())


def test_a_thousand_commands_leave_no_descriptor_and_no_process() -> None:
    async def work() -> None:
        async with a_box() as box:
            await run(box, "true")
            before = len(os.listdir("/proc/self/fd"))

            async def some() -> None:
                for _ in range(50):
                    assert (await run(box, "/bin/true")).exit == Exit(0, None)

            await asyncio.gather(*(some() for _ in range(20)))
            assert len(os.listdir("/proc/self/fd")) == before
            assert await _alive(box) == []

    in_loop(work())


def test_a_command_that_nobody_waits_for_any_more_is_ended() -> None:
    async def work() -> None:
        async with a_box() as box:
            before = len(os.listdir("/proc/self/fd"))
            for delay in (0, 0, 0.0005, 0.001):
                spawning = asyncio.ensure_future(box.spawn(Command(["sleep", "100"], "user")))
                await asyncio.sleep(delay)
                if spawning.cancel():
                    with pytest.raises(asyncio.CancelledError):
                        await spawning
                else:
                    await (await spawning).discard()
            await until(lambda: len(os.listdir("/proc/self/fd")) == before)
            deadline = time.monotonic() + 5
            while await _alive(box):
                assert time.monotonic() < deadline

    in_loop(work())


def test_a_file_worker_that_is_killed_from_inside_is_replaced() -> None:
    async def work() -> None:
        async with a_box() as box:
            for _ in range(3):
                answer, fds = await box.files("stat", path="/tmp", user="user")
                assert not fds
                assert answer["entry"]["path"] == "/tmp"
                listing = await run(box, "ps", "-e", "-o", "pid=,args=", user="root")
                pids = [line.split()[0] for line in listing.stdout.splitlines() if line.endswith(" sandbox")]
                (pid,) = set(pids) - {"1"}
                await run(box, "/bin/bash", "-c", f"kill -9 {pid}", user="root")
                await asyncio.sleep(0.05)  # a call that crosses the news of its death would fail

    in_loop(work())


def test_a_file_operation_whose_worker_is_killed_fails_in_words() -> None:
    async def work() -> None:
        async with a_box() as box:
            await box.files("stat", path="/tmp", user="user")
            await shell(box, "kill -STOP $(pgrep -x sandbox | grep -vx 1)", user="root")
            asking = asyncio.ensure_future(box.files("stat", path="/tmp", user="user"))
            await asyncio.sleep(0.05)
            await shell(box, "kill -KILL $(pgrep -x sandbox | grep -vx 1)", user="root")
            with pytest.raises(OSError, match="killed from inside"):
                await asking

    in_loop(work())


def test_output_arrives_whole_while_much_is_written() -> None:
    async def work() -> None:
        async with a_box() as box:
            process = await box.spawn(Command(["head", "-c", "50000000", "/dev/zero"], "user"))
            assert process.stdout is not None
            assert process.stderr is not None
            os.close(process.stderr)
            assert len(await read_all(process.stdout)) == 50_000_000
            assert await process.exit == Exit(0, None)

    in_loop(work())
