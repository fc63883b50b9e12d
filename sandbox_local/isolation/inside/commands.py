"""The commands that run in a box, and all that descends from each, however it hides."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable

from sandbox_local.isolation import syscalls
from sandbox_local.isolation.inside import tags
from sandbox_local.isolation.inside.children import Children
from sandbox_local.isolation.inside.kill import Kill, signal_all
from sandbox_local.isolation.inside.tags import Tag

_ENDED_KEPT = 64


class _Command:
    def __init__(self, pid: int, tag: Tag) -> None:
        self.pid = pid
        self.tag = tag
        self.running = True  # its first process, that is


class Commands:
    """The commands of this box whose processes may still be alive."""

    def __init__(self, children: Children) -> None:
        self._children = children
        self._commands: dict[int, _Command] = {}
        self._kills: list[Kill] = []
        self._ended = 0
        self._ended_bound = _ENDED_KEPT
        self._frozen = False

    def add(self, number: int, pid: int, tag: Tag) -> None:
        """Take up a command that has been forked, and its mark."""
        self._commands[number] = _Command(pid, tag)

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
            mark = command.tag.name
            self._kills.append(Kill(mark, lambda: self._kill_marked(mark), done))
            self.pursue()

    def pursue(self) -> bool:
        """Go on with what is being killed, to be called whenever something has died; True if any is left."""
        self._kills = [kill for kill in self._kills if not kill.step(self._frozen)]
        return bool(self._kills)

    def freeze(self, frozen: bool) -> None:
        """Stop or continue all processes of the box but this."""
        self._frozen = frozen
        signal_all(signal.SIGSTOP if frozen else signal.SIGCONT)

    def _kill_marked(self, mark: str) -> set[int]:
        # A child of this process that has not executed its program yet does not show its mark.
        found = set(self._children.marked(mark))
        for pid in found:
            os.kill(pid, signal.SIGKILL)
        for pid in tags.processes():
            if mark in tags.names(pid) and _kill(pid, mark):
                found.add(pid)
        return found

    def _forget_dead(self) -> None:
        """Let go of the marks of commands of which nothing is alive."""
        alive = {name for pid in tags.processes() for name in tags.names(pid)}
        alive |= {kill.mark for kill in self._kills}
        for number, command in list(self._commands.items()):
            if not command.running and command.tag.name not in alive:
                command.tag.close()
                del self._commands[number]
                self._ended -= 1
        self._ended_bound = max(_ENDED_KEPT, 2 * self._ended)


def _kill(pid: int, mark: str) -> bool:
    try:
        fd = syscalls.pidfd_open(pid)
    except OSError:
        return False
    try:
        if mark not in tags.names(pid):  # the number has passed to another process
            return False
        syscalls.pidfd_send_signal(fd, signal.SIGKILL)
        return True
    except ProcessLookupError:
        return False
    finally:
        os.close(fd)
