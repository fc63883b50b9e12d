"""From a fork of the zygote to the first process of a box."""

from __future__ import annotations

import gc
import os
import socket
from typing import NoReturn

from sandbox_local.isolation import syscalls, wire
from sandbox_local.isolation.ids import Namespace
from sandbox_local.isolation.inside.standing import Standing
from sandbox_local.isolation.making import entering
from sandbox_local.isolation.making.firsts import First
from sandbox_local.isolation.making.stage import Stage
from sandbox_local.isolation.making.wanted import Wanted

_OWN_NAMESPACES = (
    syscalls.CLONE_NEWCGROUP
    | syscalls.CLONE_NEWIPC
    | syscalls.CLONE_NEWNET
    | syscalls.CLONE_NEWNS
    | syscalls.CLONE_NEWUTS
)


def live(
    first: First,
    control: socket.socket,
    entries: list[int],
    stage: Stage,
    namespace: Namespace,
    wanted: Wanted,
) -> NoReturn:
    """Be the first process of a box; it must already be the first of its PID namespace.

    Args:
        first: What is particular to boxes of its kind.
        control: To the server.
        entries: Of the box's control groups.
        stage: What boxes are made of.
        namespace: The box's user namespace.
        wanted: What the box is to be.
    """
    try:
        entering.enter(entries)  # all that follows is in the box's account
        standing = Standing()
        _isolate(first, stage, namespace, wanted)
        syscalls.close_all_but(control.fileno(), standing.fd)
        first.run(control, namespace, wanted, standing)
    except Exception as error:  # noqa: BLE001  whatever it is, the server is told, and the box ends
        wire.send(control, {"event": "failed", "message": f"{type(error).__name__}: {error}"})
    finally:
        os._exit(1)


def _isolate(first: First, stage: Stage, namespace: Namespace, wanted: Wanted) -> None:
    gc.enable()
    syscalls.unshare(syscalls.CLONE_NEWNS)
    first.enter(stage, namespace, wanted)
    syscalls.setns(namespace.fd, syscalls.CLONE_NEWUSER)
    if namespace.ids.size > 1:
        os.setgroups([])
    os.setresgid(0, 0, 0)
    os.setresuid(0, 0, 0)
    # A mount namespace of a user namespace that has less rights: nobody in there can undo the mounts.
    syscalls.unshare(_OWN_NAMESPACES)
    first.bound()
    syscalls.set_dumpable(False)
    syscalls.loopback_up()
    socket.sethostname(wanted.hostname)
