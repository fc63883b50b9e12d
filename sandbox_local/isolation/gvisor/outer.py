"""The agent outside of gVisor: starts it, and stands between the server and the agent inside.

What the inner agent says may come from whoever took it over; so it is looked at before it is passed on.
"""

from __future__ import annotations

import json
import os
import signal
import socket
from collections.abc import Callable
from typing import Any

from sandbox_local.isolation import wire
from sandbox_local.isolation.errors import restore
from sandbox_local.isolation.gvisor.link import Link
from sandbox_local.isolation.inside import services
from sandbox_local.isolation.inside.loop import Answer, Loop
from sandbox_local.isolation.inside.reaping import reaped
from sandbox_local.isolation.inside.stdio import close_all

ROOT = "/root"
"""The box's root file system, as seen from here."""

CONTAINER = "/bundle"
_NAME = "box"
_MOST_WORDS = 2000
_ENV = {"PATH": "/"}


class OuterAgent(Loop):
    """The server's hand in a box that holds gVisor."""

    def __init__(
        self,
        control: socket.socket,
        flags: list[str],
        modules: dict[str, tuple[str, bool]],
        settings: dict[str, Any],
        confine: Callable[[], None],
    ) -> None:
        """Get ready.

        Args:
            control: To the server.
            flags: What every call of runsc takes.
            modules: The source of the inner agent.
            settings: Its arguments.
            confine: Takes from a process what no program in a box has.
        """
        super().__init__(control)
        self._runsc = ["/runsc", "--root=/run", *flags]
        self._modules = modules
        self._settings = settings
        self._confine = confine
        self._null = os.open("/dev/null", os.O_RDWR | os.O_CLOEXEC)
        for standard in range(3):
            os.dup2(self._null, standard)  # so far the host's
        self._is_ready = False
        self._worker = 0
        self._calls: dict[int, list[int]] = {}  # what to pass on with the answer
        self._commands: set[int] = set()  # those running
        self._programs: dict[int, Callable[[int], None]] = {}  # by process id
        self._operations = {
            "connect": self._connect,
            "files": self._files,
            "freeze": self._freeze,
            "kill_tree": self._pass_on("kill_tree"),
            "resize": self._pass_on("resize"),
            "signal": self._pass_on("signal"),
            "spawn": self._spawn,
        }

    def _begin(self) -> None:
        ours, theirs = socket.socketpair()
        self._words, words = os.pipe()
        os.set_blocking(self._words, False)
        with theirs:
            arguments = ["run", "--detach", f"--bundle={CONTAINER}", _NAME]
            self._start(arguments, self._container_started, theirs.fileno(), words)
        os.close(words)
        self._inner = Link(ours, self._selector, self._take_from_inside, self._inner_gone)
        sources = json.dumps(self._modules).encode()
        self._inner.put(b"%10d" % len(sources) + sources)
        self._inner.send(self._settings)

    def _start(self, arguments: list[str], done: Callable[[int], None], stdin: int, output: int) -> None:
        """Run runsc; calls `done` with its wait status."""
        argv = [*self._runsc, *arguments]
        actions = [
            (os.POSIX_SPAWN_DUP2, source, target) for target, source in enumerate((stdin, output, output))
        ]
        self._programs[os.posix_spawn(argv[0], argv, _ENV, file_actions=actions)] = done

    def _reap(self) -> None:
        for pid, status in reaped():
            if done := self._programs.pop(pid, None):
                done(status)

    def _container_started(self, status: int) -> None:
        if status:
            self._fail()

    def _inner_gone(self) -> None:
        if not self._is_ready:
            self._fail()
        os._exit(0)

    def _fail(self) -> None:
        try:
            words = os.read(self._words, 1 << 16).decode("utf-8", "replace")
        except OSError:
            words = ""
        self._send({"event": "failed", "message": f"runsc: {words.strip()[-_MOST_WORDS:] or 'it ended'}"})
        os._exit(1)

    def _take_from_inside(self, message: wire.Message) -> None:
        number = _number(message.get("id"))
        if message.get("event") == "ready" and not self._is_ready:
            self._is_ready = True
            os.close(self._words)
            self._send({"event": "ready"})
        elif (
            message.get("event") == "exit" and (command := _number(message.get("command"))) in self._commands
        ):
            self._commands.remove(command)
            code, signum = (_number(message.get(name), 255) for name in ("code", "signal"))
            event = {"event": "exit", "command": command, "core": False}
            self._send({**event, "code": code if signum or code is not None else 0, "signal": signum or None})
        elif number in self._calls:
            self._answer(number, message)

    def _answer(self, number: int, message: wire.Message) -> None:
        fds = self._calls.pop(number)
        answer = message.get("ok")
        if isinstance(answer, dict):
            self._reply(
                number, {"pid": _number(answer.get("pid")) or 0, "sent": answer.get("sent") is True}, fds
            )
        else:
            close_all(fds)
            self._commands.discard(number)
            self._refuse(number, restore(message.get("error")))

    def _pass_on(self, operation: str) -> Callable[..., None]:
        def ask(number: int, **arguments: Any) -> None:
            self._calls[number] = []
            self._inner.send({"id": number, "op": operation, "args": arguments})

        return ask

    def _spawn(self, number: int, *, stdin: bool, pty: list[int] | None, **arguments: Any) -> None:
        ours: list[int] = []
        theirs: list[int] = []
        try:
            if pty:
                ends = socket.socketpair()
                ours.append(ends[0].detach())
                theirs.append(ends[1].detach())
            else:
                _add_pipes(ours, theirs, stdin)
                if not stdin:
                    theirs.insert(0, os.dup(self._null))
            self._inner.send({"id": number, "op": "spawn", "args": {**arguments, "pty": pty}}, theirs)
        except BaseException:
            close_all(ours)
            raise
        finally:
            close_all(theirs)
        self._calls[number] = ours
        self._commands.add(number)

    def _freeze(self, number: int, *, frozen: bool) -> None:
        if self._worker:
            try:
                os.killpg(self._worker, signal.SIGSTOP if frozen else signal.SIGCONT)
            except ProcessLookupError:
                pass
        name = "pause" if frozen else "resume"

        def done(status: int) -> None:
            if status:
                self._refuse(number, OSError(5, f"gVisor could not {name} the sandbox"))
            else:
                self._reply(number, {}, [])

        self._start([name, _NAME], done, self._null, self._null)

    def _connect(self, _: int, *, host: str, port: int) -> Answer:
        return {}, [services.connect(host, port)]

    def _files(self, _: int) -> Answer:
        self._worker, fd = services.start_file_worker(self._confine, ROOT)
        return {}, [fd]


def _add_pipes(ours: list[int], theirs: list[int], stdin: bool) -> None:
    for _ in ("stdout", "stderr"):
        reader, writer = os.pipe()
        ours.append(reader)
        theirs.append(writer)
    if stdin:
        reader, writer = os.pipe()
        theirs.insert(0, reader)
        ours.append(writer)
    for fd in theirs:
        os.fchmod(fd, 0o666)  # whoever has one may open /dev/stdout


def _number(value: object, most: int = 1 << 30) -> int | None:
    return value if type(value) is int and 0 <= value <= most else None
