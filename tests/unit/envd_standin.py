"""A stand-in for an isolated box: subprocesses of this machine and the real file worker, nothing isolated.

It lets the envd services be tested where no namespaces can be made. What depends on isolation (users, killing
a whole tree, the box's own root directory) is tested in tests/live against real boxes.
"""

from __future__ import annotations

import asyncio
import fcntl
import os
import pty
import queue
import signal
import socket
import struct
import subprocess
import sys
import termios
import threading
from pathlib import Path
from typing import Any

from sandbox_local.envd.service import Envd
from sandbox_local.http import listen
from sandbox_local.isolation import wire
from sandbox_local.isolation.base import BoxGone, Command, Exit, Limits, MissingDirectory, UnknownUser, Usage

_WORKER = """
import socket, sys
from sandbox_local.isolation import users
from sandbox_local.isolation.files import worker as file_worker
files = {"/etc/passwd": sys.argv[1], "/etc/group": sys.argv[2]}
lines = users._lines
users._lines = lambda path, width: lines(files[path], width)
file_worker.serve(socket.socket(fileno=int(sys.argv[3])))
"""


class FileWorker:
    """The real file worker in a process of its own, with a user "user" whose home is a directory of the
    test."""

    def __init__(self, directory: Path) -> None:
        self.home = directory / "home"
        self.home.mkdir(exist_ok=True)
        passwd, group = directory / "passwd", directory / "group"
        ids = f"{os.getuid()}:{os.getgid()}"
        passwd.write_text(
            f"broken line\nuser:x:{ids}:the user:{self.home}:/bin/bash\nroot:x:{ids}::/root:/bin/sh\n"
        )
        group.write_text(f"users:x:{os.getgid()}:\n")
        self.sock, theirs = socket.socketpair()
        self.process = subprocess.Popen(
            [sys.executable, "-c", _WORKER, str(passwd), str(group), str(theirs.fileno())],
            pass_fds=[theirs.fileno()],
        )
        theirs.close()
        self.sock.settimeout(30)

    def send(self, request_id: int, operation: str, **arguments: Any) -> None:
        wire.send(self.sock, {"id": request_id, "op": operation, "args": arguments})

    def recv(self) -> tuple[dict[str, Any], list[int]]:
        return wire.recv(self.sock)

    def call(self, operation: str, **arguments: Any) -> tuple[dict[str, Any], list[int]]:
        """One operation; raises as `Box.files` does."""
        self.send(1, operation, **arguments)
        reply, fds = self.recv()
        if "ok" in reply:
            return reply["ok"], fds
        error = reply["error"]
        match error["kind"]:
            case "os":
                raise OSError(error["errno"], error["message"])
            case "user":
                raise UnknownUser(error["message"])
            case "path":
                raise ValueError(error["message"])
        raise RuntimeError(error["message"])

    def close(self) -> None:
        self.sock.close()
        self.process.wait(10)


class StandInProcess:
    def __init__(self, command: Command, cwd: Path, envs: dict[str, str]) -> None:
        self.stdin: int | None = None
        self.stdout: int | None = None
        self.stderr: int | None = None
        self.pty: int | None = None
        ends: list[int] = []
        if command.pty:
            self.pty, slave = pty.openpty()
            columns, rows = command.pty
            fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))
            standard = (slave, slave, slave)
            ends = [slave]
        else:
            out, err = os.pipe(), os.pipe()
            self.stdout, self.stderr = out[0], err[0]
            ends = [out[1], err[1]]
            stdin = subprocess.DEVNULL
            if command.stdin:
                stdin, self.stdin = os.pipe()
                ends.append(stdin)
            standard = (stdin, out[1], err[1])
        for fd in (self.stdin, self.stdout, self.stderr, self.pty):
            if fd is not None:
                os.set_blocking(fd, False)
        # A missing program is a process that says so and exits 127, as the contract of Box.spawn has it.
        self._popen = subprocess.Popen(
            ["/bin/sh", "-c", 'exec "$0" "$@"', *command.argv],
            stdin=standard[0],
            stdout=standard[1],
            stderr=standard[2],
            cwd=cwd,
            env=envs,
            start_new_session=True,
        )
        for fd in ends:
            os.close(fd)
        self.pid = self._popen.pid
        loop = asyncio.get_running_loop()
        self.exit: asyncio.Future[Exit] = loop.create_future()
        self._pidfd = os.pidfd_open(self.pid)
        loop.add_reader(self._pidfd, self._reap)

    def _reap(self) -> None:
        asyncio.get_running_loop().remove_reader(self._pidfd)
        os.close(self._pidfd)
        code = self._popen.wait()
        if not self.exit.done():
            self.exit.set_result(Exit(code, None) if code >= 0 else Exit(None, -code))

    async def signal(self, signum: int) -> bool:
        if self.exit.done():
            return False
        os.kill(self.pid, signum)
        return True

    def resize(self, columns: int, rows: int) -> None:
        assert self.pty is not None
        fcntl.ioctl(self.pty, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))

    async def kill_tree(self) -> None:
        try:
            os.killpg(self.pid, signal.SIGKILL)
        except ProcessLookupError:
            pass


class StandInBox:
    box_id = "standin"

    def __init__(self, directory: Path) -> None:
        self.worker = FileWorker(directory)
        self.home = self.worker.home
        self.ended: asyncio.Future[str] = asyncio.get_running_loop().create_future()
        self.spawned: list[Command] = []
        self.processes: list[StandInProcess] = []
        self._files = asyncio.Lock()

    async def spawn(self, command: Command) -> StandInProcess:
        if self.ended.done():
            raise BoxGone
        if command.user not in ("user", "root"):
            raise UnknownUser(command.user)
        if any("\0" in text for text in (*command.argv, command.cwd, *command.envs, *command.envs.values())):
            raise ValueError("a NUL")
        if any(not name or "=" in name for name in command.envs):
            raise ValueError("no name of a variable")
        cwd = self.home / command.cwd.removeprefix("~").removeprefix("/" if command.cwd[:1] == "~" else "")
        if not cwd.is_dir():
            raise MissingDirectory
        self.spawned.append(command)
        envs = {"PATH": os.environ["PATH"], "HOME": str(self.home), "USER": command.user, **command.envs}
        self.processes.append(StandInProcess(command, cwd, envs))
        return self.processes[-1]

    async def files(self, operation: str, **arguments: Any) -> tuple[dict[str, Any], list[int]]:
        if self.ended.done():
            raise BoxGone
        async with self._files:
            return await asyncio.to_thread(self.worker.call, operation, **arguments)

    async def connect(self, port: int) -> socket.socket:
        raise NotImplementedError("envd connects to nothing in its box")

    def usage(self) -> Usage:
        return Usage()

    async def egress(self) -> tuple[socket.socket, socket.socket]:
        raise NotImplementedError("envd gives its box no way out")

    async def freeze(self) -> None:
        raise NotImplementedError("envd does not freeze its box")

    async def thaw(self) -> None:
        raise NotImplementedError("envd does not thaw its box")

    async def end(self, reason: str) -> None:
        """End the box as its first process' death would."""
        self.ended.set_result(reason)
        for process in self.processes:
            if not process.exit.done():
                process.exit.set_exception(BoxGone(reason))
            await process.kill_tree()

    async def close(self) -> None:
        for process in self.processes:
            await process.kill_tree()
            await asyncio.wait([process.exit], timeout=5)
        self.worker.close()


class EnvdServer:
    """An envd over a stand-in box, served on a real port by an event loop in a thread."""

    def __init__(self, directory: Path, access_token: str | None = None) -> None:
        self._directory = directory
        self._access_token = access_token
        self._ready: queue.Queue[Exception | None] = queue.Queue()
        self._thread = threading.Thread(target=lambda: asyncio.run(self._main()))

    def __enter__(self) -> EnvdServer:
        self._thread.start()
        error = self._ready.get(timeout=30)
        if error is not None:
            raise error
        return self

    def __exit__(self, *exception: object) -> None:
        self._loop.call_soon_threadsafe(self._stop.set)
        self._thread.join(30)
        assert not self._thread.is_alive()

    async def _main(self) -> None:
        try:
            self._loop, self._stop = asyncio.get_running_loop(), asyncio.Event()
            self.box = StandInBox(self._directory)
            self.home = self.box.home
            self.envd = Envd(
                self.box, Limits(), "i" * 21, "base", {"MINE": "m", "E2B_SANDBOX": "no"}, self._access_token
            )
            server = await listen(self.envd.handle)
            self.port = server.port
            self.url = f"http://127.0.0.1:{server.port}"
        except Exception as error:  # noqa: BLE001
            self._ready.put(error)
            return
        self._ready.put(None)
        await self._stop.wait()
        await self.envd.close()
        await server.close(1.0)
        await self.box.close()
