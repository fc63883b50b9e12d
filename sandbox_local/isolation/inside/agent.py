"""The first process of a box: starts its commands, reaps them, and does what the server asks.

It trusts the server and nobody else. What commands write goes through pipes and terminals that it makes and
hands out, never through itself. When the server's socket closes it exits, and the kernel ends the box.
"""

from __future__ import annotations

import socket

from sandbox_local.isolation.errors import describe
from sandbox_local.isolation.inside import egress, services, spawn, tags
from sandbox_local.isolation.inside.children import Children
from sandbox_local.isolation.inside.commands import Commands
from sandbox_local.isolation.inside.loop import Answer, Loop, exit_event
from sandbox_local.isolation.inside.spawn import Program, Spawner
from sandbox_local.isolation.inside.stdio import Devices, Streams, close_all
from sandbox_local.isolation.inside.sudo import SudoService


class Agent(Loop):
    """The server's hand in a box."""

    def __init__(self, control: socket.socket, spawner: Spawner) -> None:
        super().__init__(control)
        self._spawner = spawner
        self._children = Children(spawner, self._selector)
        self._commands = Commands(self._children)
        self._sudo = SudoService(self._selector, self._children, tags.of)
        self._devices = Devices()
        self._operations = {
            "connect": self._connect,
            "egress": self._egress,
            "files": self._files,
            "freeze": self._freeze,
            "kill_tree": self._kill_tree,
            "signal": self._signal,
            "spawn": self._spawn,
        }

    def _reap(self) -> None:
        self._children.reap()

    def _pursue(self) -> bool:
        return self._commands.pursue()

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
        who, env, directory = spawn.place(user, envs, cwd)
        streams = self._devices.terminal(who, *pty) if pty else self._devices.pipes(who, stdin=stdin)
        tag = None
        try:
            tag = tags.new()
            pid = self._children.start(
                Program(argv, env, who, directory, streams.theirs, tag, terminal=pty is not None),
                lambda pid, error: self._started(number, pid, streams, error),
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
        self._send(exit_event(number, status))

    def _signal(self, _: int, *, command: int, signum: int) -> Answer:
        return {"sent": self._commands.signal(command, signum)}, []

    def _kill_tree(self, number: int, *, command: int) -> None:
        self._commands.kill_tree(command, lambda: self._reply(number, {}, []))

    def _freeze(self, _: int, *, frozen: bool) -> Answer:
        self._commands.freeze(frozen)
        return {}, []

    def _connect(self, _: int, *, host: str, port: int) -> Answer:
        return {}, [services.connect(host, port)]

    def _egress(self, _: int) -> Answer:
        return {}, [sock.detach() for sock in egress.open_way()]

    def _files(self, _: int) -> Answer:
        tags.new().close()  # the worker is part of no command
        return {}, [services.start_file_worker(self._spawner.confine)[1]]
