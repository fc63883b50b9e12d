"""The process that starts the programs of one command, inside gVisor.

It has the command's mark, says how the programs end, and ends with the last of them. It is forked before it
is needed, since a fork is what takes long here.
"""

from __future__ import annotations

import os
import selectors
import signal
import socket
from typing import NoReturn

from sandbox_local.isolation import wire
from sandbox_local.isolation.errors import describe, restore
from sandbox_local.isolation.gvisor import processes
from sandbox_local.isolation.gvisor.program import Mark, SentrySpawner
from sandbox_local.isolation.gvisor.pump import Pump
from sandbox_local.isolation.inside.children import Children, Ended, Started
from sandbox_local.isolation.inside.loop import Loop
from sandbox_local.isolation.inside.spawn import Program
from sandbox_local.isolation.inside.stdio import close_all
from sandbox_local.isolation.users import User

_GONE = signal.SIGKILL  # the wait status of what it ended


class Supervisor:
    """A supervisor as the inner agent sees it. It is a `children.Starter` for its command.

    Attributes:
        pid: Its process id.
        mark: What marks all that it starts.
    """

    def __init__(self, spawner: SentrySpawner, selector: selectors.BaseSelector, mark: int) -> None:
        """Fork it.

        Raises:
            OSError: There are no more processes or descriptors.
        """
        ours, theirs = socket.socketpair()
        with theirs:
            self.pid = os.fork()
            if self.pid == 0:
                _supervise(theirs, spawner, mark)
        self.mark = mark
        self._sock = ours
        self._selector = selector
        self._numbers = 0
        self._started: dict[int, Started] = {}
        self._ended: dict[int, Ended] = {}
        selector.register(ours, selectors.EVENT_READ, self._take)

    def start(
        self, program: Program, started: Started, ended: Ended, size: tuple[int, int] | None = None
    ) -> None:
        """See `children.Starter`.

        Args:
            program: What to start.
            started: Called when it has been.
            ended: Called when it has ended.
            size: Of a terminal to make for it; its only stream is then the server's end.
        """
        self._numbers += 1
        fds = [*program.stdio]
        cwd: str | None = None
        if isinstance(program.cwd, str):
            cwd = program.cwd
        else:
            fds.append(program.cwd)
        arguments = {
            "argv": program.argv,
            "env": program.env,
            "user": program.user,
            "cwd": cwd,
            "terminal": program.terminal,
            "size": size,
        }
        self._started[self._numbers] = started
        self._ended[self._numbers] = ended
        self._tell({"id": self._numbers, "op": "start", "args": arguments}, fds)

    def resize(self, columns: int, rows: int) -> None:
        """Give the command's terminal another size."""
        self._tell({"id": 0, "op": "resize", "args": {"columns": columns, "rows": rows}})

    def _tell(self, message: wire.Message, fds: list[int] | None = None) -> None:
        try:
            wire.send(self._sock, message, fds or ())
        except OSError:
            pass  # it has ended, which `_take` will see

    def _take(self) -> None:
        try:
            message, _ = wire.recv(self._sock)
        except (EOFError, OSError, wire.WireError):
            self.end()
            return
        number = message["id"]
        if "status" in message:
            self._ended.pop(number)(message["status"])
        elif "ok" in message:
            self._started.pop(number)(message["ok"]["pid"], None)
        else:
            self._started.pop(number)(0, restore(message["error"]))

    def end(self) -> None:
        """Take note of what it has said, and that it will say no more: it has ended."""
        if self._sock.fileno() < 0:
            return
        self._selector.unregister(self._sock)
        self._sock.close()
        for number, started in self._started.items():
            del self._ended[number]
            started(0, InterruptedError(4, "the command was killed while it started"))
        for ended in self._ended.values():
            ended(_GONE)


def _supervise(sock: socket.socket, spawner: SentrySpawner, mark: int) -> NoReturn:
    try:
        signal.set_wakeup_fd(-1)
        kept = {0, 1, 2, sock.fileno()}
        for name in os.listdir("/proc/self/fd"):
            if int(name) not in kept:
                try:
                    os.close(int(name))
                except OSError:
                    pass  # that by which the directory was read
        processes.put_on(mark)
        _Process(sock, spawner).run()
    finally:
        os._exit(1)


class _Process(Loop):
    """The supervisor itself."""

    def __init__(self, control: socket.socket, spawner: SentrySpawner) -> None:
        super().__init__(control)
        self._children = Children(spawner, self._selector)
        self._pump: Pump | None = None
        self._has_started = False

    def _begin(self) -> None:
        """Say nothing: it is not asked yet."""

    def _perform(self, request: wire.Message, fds: list[int]) -> None:
        if request["op"] == "start":
            self._start(request["id"], fds, **request["args"])
        elif self._pump:
            self._pump.resize(**request["args"])

    def _start(
        self,
        number: int,
        fds: list[int],
        *,
        argv: list[str],
        env: dict[str, str],
        user: list[object],
        cwd: str | None,
        terminal: bool,
        size: list[int] | None,
    ) -> None:
        name, uid, gid, groups, home, shell = user
        who = User(name, uid, gid, tuple(groups), home, shell)  # type: ignore[arg-type]
        used = list(fds)
        place: str | int = cwd if cwd is not None else fds[-1]
        stdio = fds[:3]
        if size is not None:
            self._pump = Pump(fds[0], (size[0], size[1]), uid, self._selector)  # type: ignore[arg-type]
            stdio = [self._pump.slave] * 3
            used = [self._pump.slave]
        try:
            program = Program(argv, env, who, place, stdio, Mark(-1, ""), terminal)
            self._children.start(
                program,
                lambda pid, error: self._report(number, pid, error),
                lambda status: self._end(number, status),
            )
        finally:
            self._has_started = True
            close_all(used)

    def _report(self, number: int, pid: int, error: Exception | None) -> None:
        if error is None:
            self._send({"id": number, "ok": {"pid": pid}})
        else:
            self._send({"id": number, "error": describe(error)})

    def _end(self, number: int, status: int) -> None:
        if self._pump:
            self._pump.flush()
        self._send({"id": number, "status": status})

    def _reap(self) -> None:
        self._children.reap()
        if self._has_started and _is_alone():
            if self._pump:
                self._pump.finish()
            os._exit(0)


def _is_alone() -> bool:
    try:
        os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)
    except ChildProcessError:
        return True
    return False
