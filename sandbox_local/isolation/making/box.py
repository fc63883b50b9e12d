"""From a fork of the zygote to the first process of a box."""

from __future__ import annotations

import gc
import os
import socket
from typing import NoReturn

from sandbox_local.isolation import syscalls, wire
from sandbox_local.isolation.ids import Namespace
from sandbox_local.isolation.inside import oom
from sandbox_local.isolation.inside.agent import Agent
from sandbox_local.isolation.inside.spawn import Spawner
from sandbox_local.isolation.making import entering, rootfs
from sandbox_local.isolation.making.stage import Stage
from sandbox_local.isolation.making.wanted import Wanted

_OWN_NAMESPACES = (
    syscalls.CLONE_NEWCGROUP
    | syscalls.CLONE_NEWIPC
    | syscalls.CLONE_NEWNET
    | syscalls.CLONE_NEWNS
    | syscalls.CLONE_NEWUTS
)

_CAPABILITIES = frozenset(
    {
        *range(9),  # all about files, CHOWN to FSETID, and KILL, SETGID, SETUID, SETPCAP
        10,  # NET_BIND_SERVICE
        14,  # IPC_LOCK
        15,  # IPC_OWNER
        18,  # SYS_CHROOT
        19,  # SYS_PTRACE
        27,  # MKNOD, of pipes and sockets; devices need the host's
        29,  # AUDIT_WRITE
        31,  # SETFCAP
    }
)
"""What a box's root may. All else is of no use without mounts and a network, but opens large parts of the
kernel, such as its packet filters, to whoever looks for holes in them."""


def live(
    control: socket.socket, entries: list[int], stage: Stage, namespace: Namespace, wanted: Wanted
) -> NoReturn:
    """Be the first process of a box; it must already be the first of its PID namespace.

    Args:
        control: To the server.
        entries: Of the box's control groups.
        stage: What boxes are made of.
        namespace: The box's user namespace.
        wanted: What the box is to be.
    """
    try:
        entering.enter(entries)  # all that follows is in the box's account
        score = oom.Score()
        _isolate(stage, namespace, wanted)
        syscalls.close_all_but(control.fileno(), score.fd)
        Agent(control, Spawner(namespace.ids, wanted.processes, wanted.data_bytes, score)).run()
    except Exception as error:  # noqa: BLE001  whatever it is, the server is told, and the box ends
        wire.send(control, {"event": "failed", "message": f"{type(error).__name__}: {error}"})
    finally:
        os._exit(1)


def _isolate(stage: Stage, namespace: Namespace, wanted: Wanted) -> None:
    gc.enable()
    syscalls.unshare(syscalls.CLONE_NEWNS)
    rootfs.enter(stage, namespace, wanted)
    syscalls.setns(namespace.fd, syscalls.CLONE_NEWUSER)
    if namespace.ids.size > 1:
        os.setgroups([])
    os.setresgid(0, 0, 0)
    os.setresuid(0, 0, 0)
    # A mount namespace of a user namespace that has less rights: nobody in there can undo the mounts.
    syscalls.unshare(_OWN_NAMESPACES)
    syscalls.bound_capabilities(_CAPABILITIES)  # not this process's own: it executes nothing
    syscalls.set_dumpable(False)
    syscalls.loopback_up()
    socket.sethostname(wanted.hostname)
