"""The commands that run in a box, and all that descends from each, however it hides.

Each command is started in a cgroup namespace of its own, which its descendants inherit. None can leave it,
since the filter forbids the system calls; that makes it a mark that sessions, daemons and orphans keep.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Iterator

from sandbox_local.isolation import syscalls

_ENDED_KEPT = 64
_ROUNDS = 5
"""So often a tree may grow while it is being killed, before everything is stopped so that it can't."""


class Command:
    """A command by its number, with what is known of it.

    Attributes:
        pid: The process id of its first process.
        running: Whether that one has not ended yet.
        tag: A descriptor of its namespace; while it is open, no other namespace gets the same mark.
        mark: What all its processes, and only they, have in common.
    """

    def __init__(self, pid: int, tag: int) -> None:
        self.pid = pid
        self.running = True
        self.tag = tag
        self.mark = os.readlink(f"/proc/self/fd/{tag}")


def new_tag() -> int:
    """Move into a new namespace, for what is forked next, and return a descriptor of it.

    Raises:
        OSError: The box may have no more of them.
    """
    syscalls.unshare(syscalls.CLONE_NEWCGROUP)
    return os.open("/proc/self/ns/cgroup", os.O_RDONLY | os.O_CLOEXEC)


class Commands:
    """The commands of this box whose processes may still be alive."""

    def __init__(self) -> None:
        self._commands: dict[int, Command] = {}
        self._kills: list[_Kill] = []
        self._ended = 0
        self._ended_bound = _ENDED_KEPT
        self.frozen = False

    def add(self, number: int, command: Command) -> None:
        """Take up a command that has been forked."""
        self._commands[number] = command

    def ended(self, number: int) -> None:
        """Note that a command's first process has been reaped."""
        self._commands[number].running = False
        self._ended += 1
        if self._ended > self._ended_bound:
            self._forget_dead()

    def signal(self, number: int, signum: int) -> bool:
        """Send a signal to a command's first process; False if that has ended."""
        command = self._commands.get(number)
        if command is None or not command.running:
            return False
        os.kill(command.pid, signum)
        return True

    def kill_tree(self, number: int, done: Callable[[], None]) -> None:
        """Kill all processes of a command; calls `done` when none is left."""
        command = self._commands.get(number)
        if command is None:
            done()
        else:
            self._kills.append(_Kill(command, done))
            self.pursue()

    def pursue(self) -> bool:
        """Go on with what is being killed, to be called whenever something has died; True if any is left."""
        self._kills = [kill for kill in self._kills if not kill.step(self.frozen)]
        return bool(self._kills)

    def freeze(self, frozen: bool) -> None:
        """Stop or continue all processes of the box but this."""
        self.frozen = frozen
        _signal_all(signal.SIGSTOP if frozen else signal.SIGCONT)

    def _forget_dead(self) -> None:
        alive = {mark for pid in _processes() for mark in _marks(pid)}
        pursued = {kill.command for kill in self._kills}
        for number, command in list(self._commands.items()):
            if not command.running and command.mark not in alive and command not in pursued:
                os.close(command.tag)
                del self._commands[number]
                self._ended -= 1
        self._ended_bound = max(_ENDED_KEPT, 2 * self._ended)


class _Kill:
    """A command that is being killed."""

    def __init__(self, command: Command, done: Callable[[], None]) -> None:
        self.command = command
        self._done = done
        self._seen: set[int] = set()
        self._rounds = 0

    def step(self, frozen: bool) -> bool:
        """Kill what there is; True if there was nothing any more."""
        found = self._kill_found()
        if found - self._seen:
            self._seen |= found
            self._rounds += 1
            if self._rounds > _ROUNDS and not frozen:
                _signal_all(signal.SIGSTOP)
                self._kill_found()
                _signal_all(signal.SIGCONT)
        if found:
            return False
        self._done()
        return True

    def _kill_found(self) -> set[int]:
        found = set()
        if self.command.running:
            os.kill(self.command.pid, signal.SIGKILL)
            found.add(self.command.pid)
        for pid in _processes():
            if self.command.mark in _marks(pid) and _kill(pid, self.command.mark):
                found.add(pid)
        return found


def _processes() -> Iterator[int]:
    own = os.getpid()
    for name in os.listdir("/proc"):
        if name.isdigit() and (pid := int(name)) != own:
            yield pid


def _marks(pid: int) -> list[str]:
    """The marks of a process; none if it has ended."""
    try:
        return [os.readlink(f"/proc/{pid}/ns/cgroup")]
    except OSError:
        pass
    # Its first thread may have ended before the others.
    marks = []
    try:
        for thread in os.listdir(f"/proc/{pid}/task"):
            marks.append(os.readlink(f"/proc/{pid}/task/{thread}/ns/cgroup"))
    except OSError:
        pass
    return marks


def _kill(pid: int, mark: str) -> bool:
    try:
        fd = syscalls.pidfd_open(pid)
    except OSError:
        return False
    try:
        if mark not in _marks(pid):  # the number has passed to another process
            return False
        syscalls.pidfd_send_signal(fd, signal.SIGKILL)
        return True
    except ProcessLookupError:
        return False
    finally:
        os.close(fd)


def _signal_all(signum: int) -> None:
    try:
        os.kill(-1, signum)
    except ProcessLookupError:
        pass  # this process is alone
