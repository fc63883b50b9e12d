"""From a fork of the zygote to the first process of a box that holds gVisor.

The box's root file system is made as ever, but as a directory of a small root that only our own processes and
gVisor's see. In there runsc may do as it likes: no filter, all capabilities over the box's namespaces.
"""

from __future__ import annotations

import errno
import os
import socket
from typing import NoReturn

from sandbox_local.isolation import syscalls, tree
from sandbox_local.isolation.gvisor import bundle, source
from sandbox_local.isolation.gvisor.outer import CONTAINER, ROOT, OuterAgent
from sandbox_local.isolation.ids import Namespace
from sandbox_local.isolation.inside.spawn import Spawner
from sandbox_local.isolation.inside.standing import Standing
from sandbox_local.isolation.making import etc, rootfs
from sandbox_local.isolation.making.firsts import CAPABILITIES
from sandbox_local.isolation.making.stage import RUNSC, Stage
from sandbox_local.isolation.making.wanted import Wanted

_PROC_FLAGS = syscalls.MS_NOSUID | syscalls.MS_NODEV | syscalls.MS_NOEXEC


class GvisorFirst:
    """A `firsts.First`."""

    def __init__(self, flags: list[str], python: str) -> None:
        """Get ready.

        Args:
            flags: What every call of runsc takes.
            python: The path of Python in boxes.
        """
        self._flags = flags
        self._argv = source.argv(python)
        self._modules = source.modules()  # what a box can't read any more

    def enter(self, stage: Stage, namespace: Namespace, wanted: Wanted) -> None:
        """See `firsts.First`."""
        if wanted.template:
            raise OSError(errno.EOPNOTSUPP, "sandboxes of imported templates can't be had with gVisor")
        rootfs.build(stage, namespace, wanted)
        os.chdir("/box")
        ids = namespace.ids
        ids.chown(".", 0, 0)
        for name in ("dev", "etc", "proc", "run", "tmp"):
            tree.make_directories(name, ids)
        syscalls.bind("root/dev", "dev", recursive=True)
        # gVisor mounts one for itself, which the kernel allows where another is fully visible.
        syscalls.mount("proc", "proc", "proc", _PROC_FLAGS)
        tree.bind_file(RUNSC, "runsc", ids)
        config = bundle.config(self._argv, ROOT, wanted.hostname, CAPABILITIES)
        tree.write(f"{CONTAINER.lstrip('/')}/config.json", config, ids)
        syscalls.pivot_root("/box")
        outside = os.open("/", os.O_PATH | os.O_CLOEXEC)
        os.chroot(ROOT)
        etc.write_host_name("/etc", wanted.hostname, ids)
        os.fchdir(outside)
        os.chroot(".")
        os.close(outside)

    def bound(self) -> None:
        """See `firsts.First`. The file worker bounds itself, and its configuration the container."""

    def run(
        self, control: socket.socket, namespace: Namespace, wanted: Wanted, standing: Standing
    ) -> NoReturn:
        """See `firsts.First`."""
        standing.fall_in()  # to the host's kernel, commands are gVisor's, which is to go before nobody
        spawner = Spawner(namespace.ids, wanted.processes, wanted.data_bytes, standing)
        arguments = {"processes": wanted.processes, "data_bytes": wanted.data_bytes}

        def confine() -> None:
            syscalls.bound_capabilities(CAPABILITIES)
            spawner.confine()

        OuterAgent(control, self._flags, self._modules, arguments, confine).run()
