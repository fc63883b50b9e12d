"""The first process of a box: starts its commands, reaps them, and does what the server asks.

It trusts the server and nobody else. What commands write goes through pipes and terminals that it makes and
hands out, never through itself. When the server's socket closes it exits, and the kernel ends the box.
"""

from __future__ import annotations

import errno
import os
import posixpath
import selectors
import signal
import socket
from collections.abc import Callable
from typing import NoReturn

from sandbox_local.isolation import syscalls, users, wire
from sandbox_local.isolation.errors import describe
from sandbox_local.isolation.files import worker as file_worker
from sandbox_local.isolation.inside import spawn, tags
from sandbox_local.isolation.inside.children import Children
from sandbox_local.isolation.inside.commands import Commands
from sandbox_local.isolation.inside.spawn import Program, Spawner
from sandbox_local.isolation.inside.stdio import Devices, Streams, close_all
from sandbox_local.isolation.inside.sudo import SudoService

_PURSUIT = 0.01
"""Seconds between looks at what is being killed: not every death wakes this process."""

Answer = tuple[wire.Message, list[int]]


class Agent:
    """The server's hand in a box."""

    def __init__(self, control: socket.socket, spawner: Spawner) -> None:
        self._control = control
        self._selector = selectors.DefaultSelector()
        self._spawner = spawner
        self._children = Children(spawner, self._selector)
        self._commands = Commands(self._children)
        self._sudo = SudoService(self._selector, self._children)
        self._devices = Devices()
        self._operations: dict[str, Callable[..., Answer | None]] = {
            "connect": self._connect,
            "files": self._files,
            "freeze": self._freeze,
            "kill_tree": self._kill_tree,
            "signal": self._signal,
            "spawn": self._spawn,
        }

    def run(self) -> NoReturn:
        """Serve until the server goes away."""
        woken, wake = socket.socketpair()
        for end in (woken, wake):
            end.setblocking(False)
        signal.set_wakeup_fd(wake.fileno(), warn_on_full_buffer=False)
        signal.signal(signal.SIGCHLD, lambda *_: None)
        self._selector.register(woken, selectors.EVENT_READ, lambda: self._reap(woken))
        self._selector.register(self._control, selectors.EVENT_READ, self._take_request)
        self._send({"event": "ready"})
        pursuing = False
        while True:
            for key, _ in self._selector.select(_PURSUIT if pursuing else None):
                if self._selector.get_map().get(key.fd) is key:  # not done away with by an earlier event
                    key.data()
            pursuing = self._commands.pursue()

    def _reap(self, woken: socket.socket) -> None:
        woken.recv(4096)
        self._children.reap()

    def _take_request(self) -> None:
        try:
            request, fds = wire.recv(self._control)
        except (EOFError, OSError, wire.WireError):
            os._exit(0)
        close_all(fds)
        number = request["id"]
        try:
            answer = self._operations[request["op"]](number, **request["args"])
        except Exception as error:  # noqa: BLE001  whatever it is, the server is told and the box lives on
            self._send({"id": number, "error": describe(error)})
        else:
            if answer is not None:
                self._reply(number, *answer)

    def _reply(self, number: int, answer: wire.Message, fds: list[int]) -> None:
        try:
            self._send({"id": number, "ok": answer}, fds)
        finally:
            close_all(fds)

    def _send(self, message: wire.Message, fds: list[int] | None = None) -> None:
        try:
            wire.send(self._control, message, fds or ())
        except OSError:
            os._exit(0)

    def _spawn(
        self,
        number: int,
        *,
        argv: list[str],
        user: str,
        envs: dict[str, str],
        cwd: str,
        stdin: bool,
        pty: list[int] | None,
    ) -> None:
        who = users.find(user)
        env = {"PATH": spawn.PATH, "HOME": who.home, "USER": who.name, "LOGNAME": who.name, **envs}
        at_home = cwd == "~" or cwd.startswith("~/")
        directory = posixpath.join(who.home, cwd[1:].lstrip("/") if at_home else cwd)
        streams = self._devices.terminal(who, *pty) if pty else self._devices.pipes(who, stdin=stdin)
        tag = None
        try:
            tag = tags.new()
            pid = self._children.start(
                Program(argv, env, who, directory, streams.theirs, tag, terminal=pty is not None),
                lambda error: self._started(number, pid, streams, error),
                lambda status: self._ended(number, status),
            )
        except BaseException:
            streams.close()
            if tag:
                tag.close()
            raise
        close_all(streams.theirs)
        self._commands.add(number, pid, tag)

    def _started(self, number: int, pid: int, streams: Streams, error: Exception | None) -> None:
        if error is None:
            self._reply(number, {"pid": pid}, streams.ours)
        else:
            close_all(streams.ours)
            self._send({"id": number, "error": describe(error)})

    def _ended(self, number: int, status: int) -> None:
        self._commands.ended(number)
        code = os.WEXITSTATUS(status) if os.WIFEXITED(status) else None
        signum = os.WTERMSIG(status) if os.WIFSIGNALED(status) else None
        event = {"event": "exit", "command": number, "code": code, "signal": signum}
        self._send({**event, "core": os.WCOREDUMP(status)})

    def _signal(self, _: int, *, command: int, signum: int) -> Answer:
        return {"sent": self._commands.signal(command, signum)}, []

    def _kill_tree(self, number: int, *, command: int) -> None:
        self._commands.kill_tree(command, lambda: self._reply(number, {}, []))

    def _freeze(self, _: int, *, frozen: bool) -> Answer:
        self._commands.freeze(frozen)
        return {}, []

    def _connect(self, _: int, *, host: str, port: int) -> Answer:
        sock = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET, socket.SOCK_STREAM)
        sock.setblocking(False)
        number = sock.connect_ex((host, port))
        fd = sock.detach()
        if number not in (0, errno.EINPROGRESS):
            os.close(fd)
            raise OSError(number, os.strerror(number))
        return {}, [fd]  # whoever gets it will see how it goes on

    def _files(self, _: int) -> Answer:
        servers, workers = socket.socketpair()
        with servers, workers:
            tags.new().close()  # the worker is part of no command
            if os.fork() == 0:
                try:
                    signal.set_wakeup_fd(-1)
                    syscalls.close_all_but(workers.fileno())
                    self._spawner.confine()
                    file_worker.serve(workers)
                finally:
                    os._exit(0)
            return {}, [servers.detach()]
