"""What differs between the first processes of boxes: whose kernel it is that their commands run on."""

from __future__ import annotations

import socket
from typing import NoReturn, Protocol

from sandbox_local.isolation import syscalls
from sandbox_local.isolation.ids import Namespace
from sandbox_local.isolation.inside.agent import Agent
from sandbox_local.isolation.inside.spawn import Spawner
from sandbox_local.isolation.inside.standing import Standing
from sandbox_local.isolation.making import rootfs
from sandbox_local.isolation.making.stage import Stage
from sandbox_local.isolation.making.wanted import Wanted

CAPABILITIES = frozenset(
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


class First(Protocol):
    """Makes the process that it is called in the first one of a box, step by step."""

    def enter(self, stage: Stage, namespace: Namespace, wanted: Wanted) -> None:
        """Build the box's root file system and move into it; still outside its user namespace."""

    def bound(self) -> None:
        """Bound what the programs that this process's children execute may do; as root of the box."""

    def run(
        self, control: socket.socket, namespace: Namespace, wanted: Wanted, standing: Standing
    ) -> NoReturn:
        """Serve the server until it goes away."""


class PlainFirst:
    """Commands run on the host's kernel."""

    def enter(self, stage: Stage, namespace: Namespace, wanted: Wanted) -> None:
        """See `First`."""
        rootfs.enter(stage, namespace, wanted)

    def bound(self) -> None:
        """See `First`."""
        syscalls.bound_capabilities(CAPABILITIES)  # not this process's own: it executes nothing

    def run(
        self, control: socket.socket, namespace: Namespace, wanted: Wanted, standing: Standing
    ) -> NoReturn:
        """See `First`."""
        Agent(control, Spawner(namespace.ids, wanted.processes, wanted.data_bytes, standing)).run()
