"""The backend that makes boxes of kernel namespaces."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import socket
import sys

from sandbox_local.isolation.base import BoxSpec, Limits
from sandbox_local.isolation.errors import IsolationError
from sandbox_local.isolation.gvisor.runsc import Runsc
from sandbox_local.isolation.launcher import Launcher
from sandbox_local.isolation.limits.enforcement import Enforcement
from sandbox_local.isolation.limits.groups import Group, Groups
from sandbox_local.isolation.making.wanted import Wanted
from sandbox_local.isolation.namespace_box import NamespaceBox
from sandbox_local.isolation.undo import finish_or_undo

log = logging.getLogger(__name__)

_NOT_STARTED = "there are no sandboxes: the server's isolation has not been started"


_SPARE_DESCRIPTORS = 16
"""As many must be free when a box is made."""


class NamespaceBackend:
    """A `base.Backend`. It needs no privileges; as root it makes boxes that may change all of their files."""

    def __init__(
        self, *, expose_python: bool = False, templates: str | None = None, runsc: Runsc | None = None
    ) -> None:
        """Start nothing yet.

        Args:
            expose_python: Give boxes the Python that this server runs on, without its packages, even if the
                host has one in /usr.
            templates: The directory of the store of templates.
            runsc: gVisor's program, if commands are to run on its kernel.
        """
        self._settings = {"expose_python": expose_python, "templates": templates, "runsc": runsc}
        self._launcher: Launcher | None = None
        self._groups: Groups | None = None
        self._clearing: asyncio.Future[None] | None = None
        self._restart: asyncio.Task[Launcher] | None = None
        self._boxes: set[NamespaceBox] = set()

    async def start(self) -> None:
        """See `base.Backend`. A box is made and ended on the way: nothing less proves that it can be done."""
        if sys.platform != "linux":
            raise IsolationError("isolated sandboxes need Linux; run the server there")
        try:
            self._groups = Groups()
            self._clearing = asyncio.ensure_future(self._groups.remove_leftovers())
            self._launcher = Launcher(self._settings)
            await self._launcher.ready()
            box = await self.create(BoxSpec("probe"))
            await box.close()
        except BaseException:
            await self.close()
            raise

    @property
    def enforcement(self) -> Enforcement:
        """How the limits of boxes are enforced.

        Raises:
            IsolationError: It has not been started.
        """
        if self._groups is None:
            raise IsolationError(_NOT_STARTED)
        return self._groups.enforcement

    def check(self, limits: Limits) -> None:
        """See whether boxes with these limits can be made here; warns of what is not bounded as a whole.

        Raises:
            IsolationError: They can't.
        """
        if self._groups is None:
            raise IsolationError(_NOT_STARTED)
        self._groups.check(limits)
        for shortfall in self.enforcement.shortfalls:
            log.warning(
                "%s of a whole sandbox has no bound here: %s; instead, %s. Remedy: %s",
                shortfall.resource,
                shortfall.cause,
                shortfall.instead,
                shortfall.remedy,
            )

    async def create(self, spec: BoxSpec) -> NamespaceBox:
        """See `base.Backend`. Where the launcher has died, another is started first."""
        launcher = await self._living()
        if self._groups is None:
            raise IsolationError(_NOT_STARTED)
        return await finish_or_undo(self._create(launcher, self._groups, spec), NamespaceBox.close)

    async def close(self) -> None:
        """See `base.Backend`."""
        await asyncio.gather(*(box.close() for box in self._boxes), return_exceptions=True)
        if self._restart:
            await asyncio.wait({self._restart})
        launcher, self._launcher = self._launcher, None
        if launcher:
            await launcher.close()
        groups, self._groups = self._groups, None
        if self._clearing is not None:
            self._clearing.cancel()
        if groups:
            groups.close()

    async def _living(self) -> Launcher:
        if self._launcher is None:
            raise IsolationError(_NOT_STARTED)
        if not self._launcher.gone:
            return self._launcher
        if self._restart is None:
            self._restart = asyncio.get_running_loop().create_task(self._replace(self._launcher))
            self._restart.add_done_callback(self._restarted)
        return await asyncio.shield(self._restart)

    async def _replace(self, dead: Launcher) -> Launcher:
        await dead.close()
        launcher = Launcher(self._settings)
        try:
            await launcher.ready()
        except BaseException:
            await launcher.close()
            raise
        return launcher

    def _restarted(self, restart: asyncio.Task[Launcher]) -> None:
        self._restart = None
        if not restart.cancelled() and not restart.exception():
            self._launcher = restart.result()

    async def _create(self, launcher: Launcher, groups: Groups, spec: BoxSpec) -> NamespaceBox:
        group = groups.make(spec.limits)
        try:
            ours, pid, pidfd = await _fork(launcher, group, _wanted(spec, groups))
        except BaseException:
            await group.remove()
            raise

        async def reap() -> None:
            self._boxes.discard(box)
            await launcher.reap(pid)
            await group.remove()

        box = NamespaceBox(spec.box_id, ours, pidfd, reap, group.usage)
        self._boxes.add(box)
        await box.ready()
        return box


async def _fork(launcher: Launcher, group: Group, wanted: Wanted) -> tuple[socket.socket, int, int]:
    ours, theirs = socket.socketpair()
    with theirs:
        try:
            _leave_room(ours)
            with group.entries() as entries:
                return ours, *await launcher.fork(theirs, entries, wanted)
        except BaseException:
            ours.close()
            raise


def _leave_room(sock: socket.socket) -> None:
    """See that descriptors are left for the use of boxes, and for those who come to end them."""
    with contextlib.ExitStack() as spare:
        for _ in range(_SPARE_DESCRIPTORS):
            spare.enter_context(sock.dup())


def _wanted(spec: BoxSpec, groups: Groups) -> Wanted:
    limits = spec.limits
    return Wanted(
        hostname=spec.hostname,
        disk_bytes=limits.disk_bytes,
        shm_bytes=limits.shm_bytes,
        processes=limits.processes,
        data_bytes=0 if "memory" in groups.versions else limits.memory_bytes,
        template=spec.template,
    )
