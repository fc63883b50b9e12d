"""The agent inside of gVisor: the first process there. It has commands started, signalled and killed.

Each command has a supervisor, and a mark, by which all of its processes are found.
"""

from __future__ import annotations

import errno
import os
import signal
import socket
from typing import NoReturn

from sandbox_local.isolation import wire
from sandbox_local.isolation.errors import describe
from sandbox_local.isolation.gvisor import processes
from sandbox_local.isolation.gvisor.program import Mark, SentrySpawner
from sandbox_local.isolation.gvisor.supervisor import Supervisor
from sandbox_local.isolation.inside import spawn
from sandbox_local.isolation.inside.children import Ended, Started
from sandbox_local.isolation.inside.kill import Kill
from sandbox_local.isolation.inside.loop import Answer, Loop, exit_event
from sandbox_local.isolation.inside.reaping import reaped
from sandbox_local.isolation.inside.spawn import Program
from sandbox_local.isolation.inside.stdio import close_all
from sandbox_local.isolation.inside.sudo import SudoService
from sandbox_local.isolation.inside.tags import Tag


def main() -> NoReturn:
    """Serve the outer agent on standard input."""
    control = socket.socket(fileno=os.dup(0))
    control.set_inheritable(False)
    settings, _ = wire.recv(control)
    null = os.open("/dev/null", os.O_RDWR)
    for standard in range(3):
        os.dup2(null, standard)
    os.close(null)
    signal.signal(signal.SIGPIPE, signal.SIG_IGN)
    os.umask(0o022)
    InnerAgent(control, SentrySpawner(**settings)).run()


class _Command:
    """A command of which processes may be alive."""

    def __init__(self, supervisor: Supervisor) -> None:
        self.supervisor = supervisor
        self.pid = 0  # of its first process while that runs


class InnerAgent(Loop):
    """Does what the outer agent passes on."""

    def __init__(self, control: socket.socket, spawner: SentrySpawner) -> None:
        super().__init__(control)
        self._spawner = spawner
        self._commands: dict[int, _Command] = {}
        self._supervisors: dict[int, Supervisor] = {}  # by mark, of those not reaped
        self._last_mark = 0
        self._spare: Supervisor | None = None
        self._kills: list[Kill] = []
        self._sudo = SudoService(self._selector, self, self._mark_for_sudo)
        self._operations = {"kill_tree": self._kill_tree, "resize": self._resize, "signal": self._signal}
        self._prepare_spare()

    def start(self, program: Program, started: Started, ended: Ended) -> None:
        """See `children.Starter`: start a program as part of the command whose mark it has."""
        self._supervisors[int(program.tag.name)].start(program, started, ended)

    def _perform(self, request: wire.Message, fds: list[int]) -> Answer | None:
        if request["op"] == "spawn":
            try:
                self._spawn(request["id"], fds, **request["args"])
            finally:
                close_all(fds)
            return None
        return super()._perform(request, fds)

    def _spawn(
        self,
        number: int,
        fds: list[int],
        *,
        argv: list[str],
        user: str,
        envs: dict[str, str],
        cwd: str,
        pty: list[int] | None,
    ) -> None:
        who, env, directory = spawn.place(user, envs, cwd)
        supervisor = self._spare or self._new_supervisor()
        self._spare = None
        command = self._commands[number] = _Command(supervisor)
        program = Program(argv, env, who, directory, fds, _tag(supervisor.mark), terminal=pty is not None)
        supervisor.start(
            program,
            lambda pid, error: self._started(number, command, pid, error),
            lambda status: self._ended(number, command, status),
            (pty[0], pty[1]) if pty else None,
        )

    def _started(self, number: int, command: _Command, pid: int, error: Exception | None) -> None:
        command.pid = pid
        if error is None:
            self._reply(number, {"pid": pid}, [])
        else:
            self._send({"id": number, "error": describe(error)})
        self._prepare_spare()

    def _ended(self, number: int, command: _Command, status: int) -> None:
        command.pid = 0
        self._send(exit_event(number, status))

    def _prepare_spare(self) -> None:
        if self._spare is None:
            try:
                self._spare = self._new_supervisor()
            except OSError:
                pass  # the next command will tell

    def _new_supervisor(self) -> Supervisor:
        mark = self._new_mark()
        supervisor = self._supervisors[mark] = Supervisor(self._spawner, self._selector, mark)
        return supervisor

    def _new_mark(self) -> int:
        if len(self._commands) > len(processes.MARKS) // 2:
            self._forget_dead()
        taken = {command.supervisor.mark for command in self._commands.values()} | self._supervisors.keys()
        later = range(self._last_mark + 1, processes.MARKS.stop)
        mark: int
        for mark in (*later, *processes.MARKS):
            if mark not in taken:
                self._last_mark = mark
                return mark
        raise BlockingIOError(errno.EAGAIN, "too many commands run")

    def _forget_dead(self) -> None:
        alive = set(processes.marks().values()) | self._supervisors.keys()
        for number, command in list(self._commands.items()):
            if command.supervisor.mark not in alive:
                del self._commands[number]

    def _signal(self, _: int, *, command: int, signum: int) -> Answer:
        found = self._commands.get(command)
        if found is None or not found.pid:
            return {"sent": False}, []
        try:
            os.kill(found.pid, signum)
        except ProcessLookupError:
            return {"sent": False}, []
        return {"sent": True}, []

    def _resize(self, _: int, *, command: int, columns: int, rows: int) -> Answer:
        if found := self._commands.get(command):
            found.supervisor.resize(columns, rows)
        return {}, []

    def _kill_tree(self, number: int, *, command: int) -> None:
        found = self._commands.get(command)
        if found is None:
            self._reply(number, {}, [])
            return
        mark = found.supervisor.mark
        self._kills.append(Kill(str(mark), lambda: _kill_all(mark), lambda: self._reply(number, {}, [])))
        self._pursue()

    def _pursue(self) -> bool:
        self._kills = [kill for kill in self._kills if not kill.step(frozen=False)]
        return bool(self._kills)

    def _reap(self) -> None:
        for pid, _ in reaped():
            for supervisor in list(self._supervisors.values()):
                if supervisor.pid == pid:
                    self._bury(supervisor)

    def _bury(self, supervisor: Supervisor) -> None:
        del self._supervisors[supervisor.mark]
        if supervisor is self._spare:
            self._spare = None
        supervisor.end()

    def _mark_for_sudo(self, _: int) -> Tag:
        """A new mark: gVisor does not say who asks. When that ends, what was asked for is hung up."""
        return _tag(self._new_supervisor().mark)


def _tag(mark: int) -> Tag:
    return Mark(-1, str(mark))


def _kill_all(mark: int) -> set[int]:
    found = processes.members(mark)
    for pid in found:
        try:
            os.kill(pid, signal.SIGKILL)
        except ProcessLookupError:
            pass
    return found
