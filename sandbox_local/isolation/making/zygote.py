"""The process that all boxes are forked from: small, single-threaded, without secrets.

Started by `namespaces.py` as a program of its own, it gets the right to make namespaces, puts what boxes are
made of on a stage, moves there, and then forks one box per request. It is the first process of its PID
namespace: when it dies, for whatever reason, the kernel ends all boxes.
"""

from __future__ import annotations

import errno
import gc
import os
import resource
import select
import signal
import socket
import stat
from typing import Any, NoReturn

from sandbox_local.isolation import syscalls, wire
from sandbox_local.isolation.errors import IsolationError, describe
from sandbox_local.isolation.gvisor.first import GvisorFirst
from sandbox_local.isolation.ids import Namespace, Namespaces, kept_ids
from sandbox_local.isolation.making import box, entering, interpreter, privilege
from sandbox_local.isolation.making.firsts import First, PlainFirst
from sandbox_local.isolation.making.stage import build
from sandbox_local.isolation.making.trial import works
from sandbox_local.isolation.making.wanted import Wanted

_SUDO = "/usr/bin/sudo"
_FIRST_PROCESSES = 8192  # of the box with which things are tried
_OOM_SCORE = "100"
"""When the machine's memory is short, the boxes go before the server and the host's programs."""


def main(fd: int) -> NoReturn:
    """Serve on a socket until it closes.

    Args:
        fd: The socket; its first message says how boxes are to be.
    """
    gc.disable()  # a collection in a fork would copy all that is shared
    _forget_parent()
    control = socket.socket(fileno=fd)
    control.set_inheritable(False)
    step = "starting"
    try:
        if not syscalls.supported():
            raise OSError(errno.ENOSYS, "this machine's system calls are not known")
        settings, _ = wire.recv(control)
        step = "making user, mount and PID namespaces"
        new_user_namespace = privilege.enter_namespaces()
        if pid := os.fork():
            control.close()
            syscalls.die_with_parent()
            os._exit(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) & 0xFF)
        syscalls.die_with_parent()
        step = "preparing what sandboxes are made of"
        zygote = Zygote(control, new_user_namespace=new_user_namespace, **settings)
        step = "serving"
        zygote.run()
    except IsolationError as error:  # says all there is to say
        wire.send(control, {"event": "refused", "message": str(error)})
    except Exception as error:  # noqa: BLE001  whatever it is, the server is told, and the kernel does the rest
        number = error.errno if isinstance(error, OSError) else None
        message = f"{type(error).__name__}: {error}"
        wire.send(control, {"event": "failed", "step": step, "errno": number, "message": message})
    finally:
        os._exit(1)


class Zygote:
    """The process itself, once it is root of its namespaces."""

    def __init__(
        self,
        control: socket.socket,
        *,
        new_user_namespace: bool,
        expose_python: bool,
        templates: str | None,
        runsc: tuple[str, list[str]] | None,
    ) -> None:
        """Set the stage.

        Args:
            control: To the server.
            new_user_namespace: Whether its user namespace is its own.
            expose_python: Give boxes this Python even if the host has one in /usr.
            templates: The host's directory of templates.
            runsc: Where gVisor's program is, and its flags, if commands are to run on its kernel.

        Raises:
            OSError: The kernel refused a step.
        """
        self._control = control
        self._boxes: dict[int, Namespace] = {}  # by process id
        syscalls.mount("none", "/", flags=syscalls.MS_PRIVATE | syscalls.MS_REC)
        syscalls.mount("proc", "/proc", "proc")
        if new_user_namespace:
            privilege.share_watches()
        self._pid_namespace = os.open("/proc/self/ns/pid", os.O_RDONLY | os.O_CLOEXEC)
        self._namespaces = Namespaces()
        first = self._namespaces.take(_FIRST_PROCESSES)
        python = interpreter.choose(expose=expose_python)
        path, flags = runsc or ("", [])
        if path and first.ids.size == 1:
            raise IsolationError(
                "gVisor needs a range of user ids. Remedy: run the server as root, or install newuidmap and "
                "newgidmap (Debian: package uidmap) and give this user a range in /etc/subuid and /etc/subgid"
            )
        self._first: First = GvisorFirst(flags, python.path) if path else PlainFirst()
        shim = bool(path) or not _sudo_works(first)  # gVisor knows no setuid programs
        stage = build(first.ids, python, sudo_shim=shim, templates=templates, runsc=path)
        self._stage = stage.settle(first)
        self._namespaces.give_back(first)
        syscalls.set_dumpable(False)
        gc.freeze()

    def run(self) -> NoReturn:
        """Fork boxes as the server asks, until it goes away."""
        wire.send(self._control, {"event": "ready"})
        while True:
            try:
                request, fds = wire.recv(self._control)
            except wire.DescriptorsLost as lost:
                wire.send(self._control, {"id": lost.message["id"], "error": describe(lost)})
                continue
            except (EOFError, OSError):
                os._exit(0)
            passed: list[int] = []
            try:
                operation = {"create": self._create, "release": self._release}[request["op"]]
                answer, passed = operation(fds, **request["args"])
            except OSError as error:
                reply = {"id": request["id"], "error": describe(error)}
            else:
                reply = {"id": request["id"], "ok": answer}
            try:
                wire.send(self._control, reply, passed)
            finally:
                for fd in (*fds, *passed):
                    os.close(fd)

    def _create(self, fds: list[int], **wanted: Any) -> tuple[wire.Message, list[int]]:
        """Fork the first process of a box, whose socket came with the request, and then the entries
        to its control groups; returns its PID and pidfd."""
        poll = select.poll()
        poll.register(fds[0], 0)
        if poll.poll(0):  # the other end is closed: the server has given up
            raise OSError(errno.ECANCELED, os.strerror(errno.ECANCELED))
        # Where templates can't be id-mapped, all boxes made of them have the ids that those are kept by.
        kept = kept_ids() if wanted.get("template") else None
        # Each user has the bound; where there are no control groups, all of them have twice that together.
        namespace = self._namespaces.take(2 * wanted["processes"], kept if kept and kept.base else None)
        try:
            stage = self._stage.of(namespace.ids)
            syscalls.unshare(syscalls.CLONE_NEWPID)
            try:
                control, *entries = fds
                pid = entering.fork(entries)
                if pid == 0:
                    sock = socket.socket(fileno=control)
                    box.live(self._first, sock, entries, stage, namespace, Wanted(**wanted))
            finally:
                syscalls.setns(self._pid_namespace, syscalls.CLONE_NEWPID)
        except OSError:
            self._namespaces.give_back(namespace)
            raise
        self._boxes[pid] = namespace
        try:
            return {"pid": pid}, [syscalls.pidfd_open(pid)]
        except OSError:
            self._release([], pid=pid)
            raise

    def _release(self, fds: list[int], *, pid: int) -> tuple[wire.Message, list[int]]:
        """End a box if it has not ended, and reap it."""
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
        self._namespaces.give_back(self._boxes.pop(pid))
        return {}, []


def _sudo_works(namespace: Namespace) -> bool:
    """Whether the host's sudo can work in a box: it needs to belong to the box's root there."""
    try:
        setuid = os.stat(_SUDO).st_mode & stat.S_ISUID
    except OSError:
        return False
    return bool(setuid and namespace.ids.base) and works(syscalls.set_idmap, "/usr", namespace.fd)


def _forget_parent() -> None:
    """Undo what a program inherits, and hide the arguments that others can read."""
    for number in set(range(1, signal.NSIG)) - {signal.SIGKILL, signal.SIGSTOP}:
        syscalls.reset_signal(number)
    signal.signal(signal.SIGPIPE, signal.SIG_IGN)  # a write to whoever is gone is to be an error
    signal.pthread_sigmask(signal.SIG_SETMASK, ())
    os.umask(0o022)
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    with open("/proc/self/oom_score_adj", "w", encoding="ascii") as file:
        file.write(_OOM_SCORE)
    os.chdir("/")
    syscalls.set_title("sandbox")
