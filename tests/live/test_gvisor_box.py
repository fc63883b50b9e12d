"""The contract of a box, where commands run on gVisor's kernel."""

from __future__ import annotations

import asyncio
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from sandbox_local.isolation.base import BoxSpec, Command
from sandbox_local.isolation.errors import BoxGone, IsolationError, MissingDirectory, UnknownUser
from sandbox_local.isolation.gvisor import runsc
from sandbox_local.isolation.namespace_box import NamespaceBox
from tests.live.boxes import a_backend, finish, in_loop, read_some, shell

needs_runsc = pytest.mark.skipif(
    shutil.which("runsc") is None or os.geteuid() != 0, reason="needs the program `runsc` of gVisor, and root"
)


@asynccontextmanager
async def _a_box() -> AsyncIterator[NamespaceBox]:
    async with a_backend(runsc=runsc.find()) as backend:
        yield await backend.create(BoxSpec("box"))


@needs_runsc
def test_commands_run_on_another_kernel_as_the_user_asked_for() -> None:
    async def work() -> None:
        async with _a_box() as box:
            out = await shell(
                box, "id -un; pwd; echo $A; cat /proc/version; echo bad >&2; exit 3", envs={"A": "b"}
            )
            assert out.stdout.split("\n")[:3] == ["user", "/home/user", "b"]
            with open("/proc/version", encoding="ascii") as file:
                assert file.read() not in out.stdout
            assert "Linux version" in out.stdout
            assert (out.exit.code, out.exit.signal, out.stderr) == (3, None, "bad\n")
            out = await shell(box, "id -u; hostname; sudo -n id -u; echo shown > /dev/stdout", user="root")
            assert out.stdout.split() == ["0", "sandbox", "0", "shown"]
            assert (await shell(box, "sudo -n id -un")).stdout == "root\n"

    in_loop(work())


@needs_runsc
def test_starts_that_fail_say_why() -> None:
    async def work() -> None:
        async with _a_box() as box:
            missing = await finish(await box.spawn(Command(["nonesuch"], "user")))
            assert (missing.exit.code, missing.stderr) == (127, "nonesuch: command not found\n")
            assert (await finish(await box.spawn(Command(["/etc/passwd"], "user")))).exit.code == 126
            with pytest.raises(MissingDirectory):
                await box.spawn(Command(["true"], "user", cwd="/nonesuch"))
            with pytest.raises(UnknownUser):
                await box.spawn(Command(["true"], "nonesuch"))

    in_loop(work())


@needs_runsc
def test_input_signals_and_process_ids() -> None:
    async def work() -> None:
        async with _a_box() as box:
            process = await box.spawn(Command(["sh", "-c", "echo $$; exec cat"], "user", stdin=True))
            assert process.stdin is not None
            os.write(process.stdin, b"typed\n")
            os.close(process.stdin)
            assert (await finish(process)).stdout == f"{process.pid}\ntyped\n"
            assert not await process.signal(signal.SIGTERM)
            process = await box.spawn(Command(["sleep", "100"], "user"))
            assert await process.signal(signal.SIGTERM)
            assert (await finish(process)).exit.signal == signal.SIGTERM

    in_loop(work())


@needs_runsc
def test_killing_a_tree_reaches_daemons_and_spares_others() -> None:
    async def work() -> None:
        async with _a_box() as box:
            other = await box.spawn(Command(["sleep", "100"], "user"))
            script = (
                "(setsid env -i /bin/sleep 101 &); sudo -n sleep 102 & sleep 103 & sleep 0.2; echo up; wait"
            )
            process = await box.spawn(Command(["bash", "-c", script], "user"))
            assert process.stdout is not None
            assert await read_some(process.stdout) == b"up\n"
            await process.kill_tree()
            assert (await process.exit).signal == signal.SIGKILL
            # sudo's command is hung up, which is not waited for.
            script = "for n in $(seq 100); do pgrep -f '[s]leep 102' >/dev/null || break; sleep 0.1; done; "
            script += "pgrep -fa '[s]leep 10'"
            left = (await shell(box, script)).stdout.splitlines()
            assert [line.split(maxsplit=1)[1] for line in left] == ["sleep 100"]
            assert await other.signal(signal.SIGKILL)

    in_loop(work())


@needs_runsc
def test_a_terminal_has_the_size_it_is_given() -> None:
    async def work() -> None:
        async with _a_box() as box:
            process = await box.spawn(Command(["bash", "--norc"], "user", pty=(91, 17)))
            assert process.pty is not None
            os.write(process.pty, b"stty size; tty -s && echo a-$((1+1))\n")
            shown = b""
            while b"a-2" not in shown:
                shown += await read_some(process.pty)
            assert b"17 91" in shown
            process.resize(45, 12)
            os.write(process.pty, b"sleep 0.2; stty size; exit 4\n")
            while chunk := await read_some(process.pty):
                shown += chunk
            assert b"12 45" in shown
            assert (await process.exit).code == 4
            os.close(process.pty)

    in_loop(work())


@needs_runsc
def test_files_and_ports_are_those_of_the_commands() -> None:
    async def work() -> None:
        async with _a_box() as box:
            await shell(box, "mkdir ~/made; touch /tmp/made; chmod 640 /tmp/made")
            answer, _ = await box.files("stat", path="/tmp/made", user="user")
            assert "made" in str(answer)
            server = await box.spawn(Command(["python3", "-m", "http.server", "8000"], "user"))
            for _ in range(200):
                try:
                    sock = await box.connect(8000)
                    break
                except ConnectionRefusedError:
                    await asyncio.sleep(0.05)
            with sock:
                loop = asyncio.get_running_loop()
                await loop.sock_sendall(sock, b"GET / HTTP/1.0\r\n\r\n")
                assert (await loop.sock_recv(sock, 100)).startswith(b"HTTP/1.0 200")
            await server.kill_tree()

    in_loop(work())


@needs_runsc
def test_a_frozen_box_stands_still_and_goes_on() -> None:
    async def work() -> None:
        async with _a_box() as box:
            script = "while :; do echo .; sleep 0.02; done"
            process = await box.spawn(Command(["bash", "-c", script], "user"))
            assert process.stdout is not None
            await read_some(process.stdout)
            await box.freeze()
            try:
                while os.read(process.stdout, 1 << 16):
                    pass
            except BlockingIOError:
                pass  # all that was written before
            with pytest.raises(asyncio.TimeoutError):
                await asyncio.wait_for(read_some(process.stdout), 0.5)
            await box.thaw()
            assert await asyncio.wait_for(read_some(process.stdout), 10)
            await box.close()
            with pytest.raises(BoxGone):
                await process.exit

    in_loop(work())


@needs_runsc
def test_the_host_and_what_runs_gvisor_are_out_of_sight() -> None:
    async def work() -> None:
        async with _a_box() as box:
            hidden = f"/runsc /bundle /storage {sys.prefix} {__file__}"
            script = f"for path in {hidden}; do test -e $path && echo $path; done; cat /proc/*/comm"
            out = await shell(box, script, "root")
            assert "/" not in out.stdout
            assert "runsc" not in out.stdout
            assert "python" in out.stdout

    in_loop(work())


def test_without_its_program_the_server_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/nonesuch")
    with pytest.raises(IsolationError, match="runsc"):
        runsc.find()
    command = [sys.executable, "-m", "sandbox_local", "serve", "--isolation", "gvisor"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 78
    assert "install" in done.stderr
