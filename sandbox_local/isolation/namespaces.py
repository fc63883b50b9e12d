"""The backend that makes boxes of kernel namespaces, on the server's side: the zygote and its boxes."""

from __future__ import annotations

import asyncio
import os
import socket
import subprocess
import sys

from sandbox_local.isolation import probe, wire
from sandbox_local.isolation.base import BoxSpec
from sandbox_local.isolation.channel import Channel
from sandbox_local.isolation.errors import IsolationError
from sandbox_local.isolation.namespace_box import NamespaceBox
from sandbox_local.isolation.undo import finish_or_undo

_BOOTSTRAP = (
    "import sys; sys.path.append(sys.argv[1]); "
    "from sandbox_local.isolation import zygote; zygote.main(int(sys.argv[2]))"
)
_IMPORT_ROOT = os.path.abspath(os.path.join(os.path.dirname(__file__), "..", ".."))
_START = 30.0
"""Seconds within which the zygote must be ready; a tenth of one, usually."""

_END = 10.0
"""Seconds within which the zygote must have died after it was killed."""


class NamespaceBackend:
    """A `base.Backend`: needs no privileges, but makes better boxes as root."""

    def __init__(self, *, expose_python: bool = False) -> None:
        """Start nothing yet.

        Args:
            expose_python: Give boxes the Python that this server runs on, without its packages, even if the
                host has one in /usr.
        """
        self._settings = {"expose_python": expose_python}
        self._launcher: subprocess.Popen[bytes] | None = None
        self._zygote: Channel | None = None
        self._ready: asyncio.Future[None] | None = None
        self._boxes: set[NamespaceBox] = set()

    async def start(self) -> None:
        """See `base.Backend`. A box is made and ended on the way: nothing less proves that it can be done."""
        ours, theirs = socket.socketpair()
        with theirs:
            # Its own session: a Ctrl-C at the server's terminal is for the server to deal with.
            self._launcher = subprocess.Popen(
                [sys.executable, "-S", "-E", "-I", "-c", _BOOTSTRAP, _IMPORT_ROOT, str(theirs.fileno())],
                env={},
                pass_fds=[theirs.fileno()],
                start_new_session=True,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
            )
            self._ready = asyncio.get_running_loop().create_future()
            self._zygote = Channel(ours, on_event=self._take_event, on_end=self._zygote_died, gone=_gone)
        try:
            self._zygote.tell(self._settings)
            await asyncio.wait_for(asyncio.shield(self._ready), _START)
            box = await self.create(BoxSpec("probe"))
            await box.close()
        except asyncio.TimeoutError:
            await self.close()
            raise IsolationError(f"the launcher of sandboxes was not ready within {_START:.0f} s") from None
        except BaseException:
            await self.close()
            raise

    async def create(self, spec: BoxSpec) -> NamespaceBox:
        """See `base.Backend`.

        Raises:
            IsolationError: The kernel refused, or the launcher of sandboxes has died.
            OSError: The machine has no more processes, memory or descriptors to give.
        """
        return await finish_or_undo(self._create(spec), NamespaceBox.close)

    async def close(self) -> None:
        """See `base.Backend`."""
        await asyncio.gather(*(box.close() for box in self._boxes), return_exceptions=True)
        if self._zygote:
            self._zygote.close()
        if self._launcher:
            await asyncio.get_running_loop().run_in_executor(None, _end, self._launcher)
            self._launcher = None

    async def _create(self, spec: BoxSpec) -> NamespaceBox:
        if self._zygote is None:
            raise IsolationError("the backend has not been started")
        zygote = self._zygote
        ours, theirs = socket.socketpair()
        try:
            with theirs:
                arguments = {"hostname": spec.hostname, "disk_bytes": spec.disk_bytes}
                answer, fds = await zygote.call("create", arguments, [theirs.fileno()])
        except BaseException:
            ours.close()
            raise

        async def reap() -> None:
            self._boxes.discard(box)
            try:
                await zygote.call("release", {"pid": answer["pid"]})
            except IsolationError:
                pass  # the zygote has died, and nothing remains of its boxes

        box = NamespaceBox(spec.box_id, ours, fds[0], reap)
        self._boxes.add(box)
        await box.ready()
        return box

    def _take_event(self, event: wire.Message) -> None:
        if self._ready is None or self._ready.done():
            return
        if event["event"] == "ready":
            self._ready.set_result(None)
        else:
            self._ready.set_exception(probe.explain(event["step"], event["errno"], event["message"]))

    def _zygote_died(self) -> None:
        """The kernel ends all boxes now, and they notice by themselves."""
        if self._ready and not self._ready.done():
            self._ready.set_exception(_gone())
            self._ready.exception()


def _gone() -> IsolationError:
    return IsolationError("the launcher of sandboxes has died; start the server anew")


def _end(launcher: subprocess.Popen[bytes]) -> None:
    """Wait for the launcher, whose socket is closed, and for the zygote, which it waits for."""
    try:
        launcher.wait(_END)
    except subprocess.TimeoutExpired:
        launcher.kill()
        launcher.wait()
