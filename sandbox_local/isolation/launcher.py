"""The zygote as the server sees it: a process of its own to ask for boxes."""

from __future__ import annotations

import asyncio
import logging
import os
import socket
import subprocess
import sys
from collections.abc import Sequence
from typing import Any

from sandbox_local.isolation import probe, wire
from sandbox_local.isolation.channel import Channel
from sandbox_local.isolation.errors import IsolationError, LauncherGone, NoAnswer
from sandbox_local.isolation.making.wanted import Wanted

log = logging.getLogger(__name__)

_BOOTSTRAP = (
    "import sys; sys.path.append(sys.argv[1]); "
    "from sandbox_local.isolation.making import zygote; zygote.main(int(sys.argv[2]))"
)
_IMPORT_ROOT = os.path.abspath(os.path.join(os.path.dirname(__file__), "..", ".."))
_START = 30.0
"""Seconds within which the zygote must be ready; a tenth of one, usually."""

_END = 5.0
"""Seconds within which the zygote must have ended after its socket was closed."""

_BURIAL = 2.0
"""Seconds that the end of a box waits for the removal of what is left: a number and a name."""


class Launcher:
    """A zygote that is running."""

    def __init__(self, settings: dict[str, Any]) -> None:
        """Start it.

        Args:
            settings: The arguments of `zygote.Zygote`.

        Raises:
            OSError: The program can't be started.
        """
        self._death = "it was killed"
        self._ready: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        ours, theirs = socket.socketpair()
        with theirs:
            try:
                self._process = subprocess.Popen(
                    [sys.executable, "-S", "-E", "-I", "-c", _BOOTSTRAP, _IMPORT_ROOT, str(theirs.fileno())],
                    env={},
                    pass_fds=[theirs.fileno()],
                    start_new_session=True,  # a Ctrl-C at the server's terminal is the server's to deal with
                    stdin=subprocess.DEVNULL,
                    stdout=subprocess.DEVNULL,
                    stderr=subprocess.DEVNULL,
                )
            except BaseException:
                ours.close()
                raise
        self._channel = Channel(ours, on_event=self._take_event, on_end=self._ended, gone=self._gone)
        self._channel.tell(settings)

    @property
    def gone(self) -> bool:
        """Whether it has died."""
        return not self._channel.is_open

    async def ready(self) -> None:
        """Wait until it can fork boxes.

        Raises:
            IsolationError: This machine does not allow it, or it took too long.
        """
        try:
            await asyncio.wait_for(asyncio.shield(self._ready), _START)
        except asyncio.TimeoutError:
            raise IsolationError(f"the launcher of sandboxes was not ready within {_START:.0f} s") from None

    async def fork(self, sock: socket.socket, entries: Sequence[int], wanted: Wanted) -> tuple[int, int]:
        """Have a box forked.

        Args:
            sock: The agent's end of its connection to the server; the caller keeps its own copy.
            entries: Descriptors by which it enters its control groups; likewise.
            wanted: What the box is to be.

        Returns:
            What the zygote calls the box's first process, and a pidfd of it.

        Raises:
            LauncherGone: The zygote has died.
            NoAnswer: It does not answer. It makes no box for a socket whose other end has been closed.
            OSError: The machine has no more processes, namespaces or descriptors to give.
        """
        try:
            answer, fds = await self._channel.call("create", wanted._asdict(), [sock.fileno(), *entries])
        except wire.DescriptorsLost as lost:
            await self.reap(lost.message["ok"]["pid"])  # nobody could tell when it ends
            raise
        return answer["pid"], fds[0]

    async def reap(self, pid: int) -> None:
        """Have a box ended, if it has not, and its first process waited for."""
        try:
            await self._channel.call("release", {"pid": pid}, seconds=_BURIAL)
        except LauncherGone:
            pass  # nothing remains of its boxes
        except NoAnswer:
            log.warning(
                "the launcher of sandboxes stands still; it removes what is left of one when it goes on"
            )

    async def close(self) -> None:
        """End the zygote and with it all boxes."""
        self._channel.close()
        await asyncio.get_running_loop().run_in_executor(None, self._wait)

    def _wait(self) -> None:
        try:
            self._process.wait(_END)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()

    def _take_event(self, event: wire.Message) -> None:
        if event["event"] == "ready":
            self._ready.set_result(None)
        elif self._ready.done():
            self._death = event["message"]
        elif event["event"] == "refused":
            self._ready.set_exception(IsolationError(event["message"]))
        else:
            self._ready.set_exception(probe.explain(event["step"], event["errno"], event["message"]))

    def _ended(self) -> None:
        if not self._ready.done():
            self._ready.set_exception(self._gone())
        else:
            log.error("%s", self._gone())

    def _gone(self) -> LauncherGone:
        return LauncherGone(
            f"the launcher of sandboxes has died ({self._death}), and all sandboxes with it; "
            "the next sandbox that is asked for gets a new one"
        )
