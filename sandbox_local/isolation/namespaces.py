"""The backend that makes boxes of kernel namespaces."""

from __future__ import annotations

import asyncio
import socket
import sys

from sandbox_local.isolation.base import BoxSpec
from sandbox_local.isolation.errors import IsolationError
from sandbox_local.isolation.launcher import Launcher
from sandbox_local.isolation.making.wanted import Wanted
from sandbox_local.isolation.namespace_box import NamespaceBox
from sandbox_local.isolation.undo import finish_or_undo


class NamespaceBackend:
    """A `base.Backend`. It needs no privileges; as root it makes boxes that may change all of their files."""

    def __init__(self, *, expose_python: bool = False) -> None:
        """Start nothing yet.

        Args:
            expose_python: Give boxes the Python that this server runs on, without its packages, even if the
                host has one in /usr.
        """
        self._settings = {"expose_python": expose_python}
        self._launcher: Launcher | None = None
        self._boxes: set[NamespaceBox] = set()

    async def start(self) -> None:
        """See `base.Backend`. A box is made and ended on the way: nothing less proves that it can be done."""
        if sys.platform != "linux":
            raise IsolationError("isolated sandboxes need Linux; run the server there")
        self._launcher = Launcher(self._settings)
        try:
            await self._launcher.ready()
            box = await self.create(BoxSpec("probe"))
            await box.close()
        except BaseException:
            await self.close()
            raise

    async def create(self, spec: BoxSpec) -> NamespaceBox:
        """See `base.Backend`."""
        if self._launcher is None:
            raise IsolationError("there are no sandboxes: the server's isolation has not been started")
        return await finish_or_undo(self._create(self._launcher, spec), NamespaceBox.close)

    async def close(self) -> None:
        """See `base.Backend`."""
        await asyncio.gather(*(box.close() for box in self._boxes), return_exceptions=True)
        launcher, self._launcher = self._launcher, None
        if launcher:
            await launcher.close()

    async def _create(self, launcher: Launcher, spec: BoxSpec) -> NamespaceBox:
        ours, theirs = socket.socketpair()
        try:
            with theirs:
                pid, pidfd = await launcher.fork(theirs, Wanted(spec.hostname, spec.limits.disk_bytes))
        except BaseException:
            ours.close()
            raise

        async def reap() -> None:
            self._boxes.discard(box)
            await launcher.reap(pid)

        box = NamespaceBox(spec.box_id, ours, pidfd, reap)
        self._boxes.add(box)
        await box.ready()
        return box
