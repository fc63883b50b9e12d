"""Work on the files of a build by a process of its own, with the user ids that sandboxes have."""

from __future__ import annotations

import json
import os
import resource
import signal
from collections.abc import Callable
from typing import Any, NoReturn

from sandbox_local.isolation import probe, syscalls
from sandbox_local.isolation.ids import Ids, kept_ids, make_namespace
from sandbox_local.isolation.making import privilege
from sandbox_local.templates.store import TemplateError

_MEMORY = 2 << 30
"""Bound of what the process may allocate: an archive can ask for any amount."""

Work = Callable[[Ids], dict[str, Any]]


def run(work: Work, root: str | None = None) -> dict[str, Any]:
    """Do work in a child process.

    Args:
        work: What to do; it is told which ids owners have. What it returns, JSON can hold.
        root: The directory that is to be all that the work can reach, as root of a user namespace like a
            box's. Without, the host's files are in reach, with the right to change those of all boxes.

    Raises:
        TemplateError: It raised that, an OSError or a ValueError, or the machine denies the namespaces.
    """
    report, told = os.pipe()
    pid = os.fork()
    if pid == 0:
        os.close(report)
        _child(work, root, told)
    os.close(told)
    try:
        with open(report, "rb") as file:
            text = file.read()
    finally:
        os.waitpid(pid, 0)
    if not text:
        raise TemplateError("the process that worked on the template was killed")
    answer: dict[str, Any] = json.loads(text)
    if "error" in answer:
        raise TemplateError(answer["error"])
    return answer


def _child(work: Work, root: str | None, told: int) -> NoReturn:
    answer: dict[str, Any]
    try:
        _enter()
        if pid := os.fork():
            syscalls.die_with_parent()
            os.waitpid(pid, 0)
            os._exit(0)
        syscalls.die_with_parent()
        answer = _answer(work, root)
    except OSError as error:
        explained = probe.explain("making namespaces for the import", error.errno, str(error))
        answer = {"error": str(explained)}
    except BaseException as error:  # noqa: BLE001  the parent is told, whatever it is
        answer = {"error": f"{type(error).__name__}: {error}"}
    try:
        os.write(told, json.dumps(answer).encode())
    finally:
        os._exit(0)


def _enter() -> None:
    for signum in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(signum, signal.SIG_DFL)
    privilege.enter_namespaces()


def _answer(work: Work, root: str | None) -> dict[str, Any]:
    syscalls.mount("none", "/", flags=syscalls.MS_PRIVATE | syscalls.MS_REC)
    syscalls.mount("proc", "/proc", "proc")
    ids = kept_ids()
    if root:
        _confine(root, ids)
    os.umask(0)
    try:
        return work(ids)
    except (TemplateError, ValueError) as error:
        return {"error": str(error)}
    except (MemoryError, RecursionError) as error:
        return {"error": f"it is too deep, or asks for too much memory ({type(error).__name__})"}
    except OSError as error:
        return {"error": f"{error.strerror or error}: {error.filename!r}"}


def _confine(root: str, ids: Ids) -> None:
    """Let `root`, an empty directory, be the root of this process, and leave it no rights outside."""
    namespace = make_namespace(ids)
    os.chown(root, ids.base, ids.base)
    os.chmod(root, 0o755)
    syscalls.bind(root, root)
    syscalls.pivot_root(root)
    syscalls.setns(namespace, syscalls.CLONE_NEWUSER)
    if ids.size > 1:
        os.setgroups([])
    os.setresgid(0, 0, 0)
    os.setresuid(0, 0, 0)
    syscalls.die_with_parent()  # forgotten with the change of ids
    resource.setrlimit(resource.RLIMIT_AS, (_MEMORY, _MEMORY))
