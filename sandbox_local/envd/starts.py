"""One process for each request id, however often and however concurrently its start is asked for.

A client that lost the answer to a start can ask again with the same Idempotency-Key: it then follows the
process that its first request started, from the first byte of its output on.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Callable
from dataclasses import dataclass, field
from weakref import WeakSet

from sandbox_local.envd.fanout import Reader
from sandbox_local.envd.running import Event, Running
from sandbox_local.rpc import Code, RpcError

WINDOW = 300.0
"""Seconds for which a start can be repeated."""

OUTPUT_KEPT = 32 << 10
"""Bytes of first output that are kept for who repeats a start."""

_MOST = 256
_KEY = re.compile(r"[A-Za-z0-9_-]{1,255}")


@dataclass(eq=False)
class Started:
    """A process, and those who asked for its start: its timeout is theirs.

    Attributes:
        running: The process.
        first: The place of who asked first among the readers of its output.
    """

    running: Running
    first: Reader[Event]
    _again: WeakSet[Reader[Event]] = field(default_factory=WeakSet)

    @property
    def readers(self) -> list[Reader[Event]]:
        """The places of all who asked and have not gone."""
        return [self.first, *self._again]

    def follow(self) -> Reader[Event]:
        """A place among the readers of its output, from the first byte on.

        Raises:
            RpcError: That is no longer kept (ABORTED).
        """
        if not self.running.output.begins:
            raise RpcError(
                Code.ABORTED,
                f"this request started process {self.running.process.pid} before, whose first output is no "
                "longer kept; connect to it to follow it from now on",
            )
        reader = self.running.output.reader(from_start=True)
        self._again.add(reader)
        return reader


@dataclass(frozen=True)
class _Entry:
    request: bytes
    task: asyncio.Task[Started]


class Starts:
    """The starts of the last minutes that carried a request id."""

    def __init__(self) -> None:
        self._entries: dict[str, _Entry] = {}

    def once(
        self, key: str, request: bytes, launch: Callable[[], asyncio.Task[Started]]
    ) -> asyncio.Task[Started]:
        """Launch a process, unless an equal request with the same key has.

        Args:
            key: The request id.
            request: What tells this request from another, in a few bytes, for they are kept.
            launch: Launches it.

        Raises:
            RpcError: The key is malformed (INVALID_ARGUMENT), or was used for another request
                (ALREADY_EXISTS).
        """
        if not _KEY.fullmatch(key):
            message = "idempotency-key must be 1 to 255 letters, digits, '-' or '_'"
            raise RpcError(Code.INVALID_ARGUMENT, message)
        entry = self._entries.get(key)
        if entry is None:
            return self._add(key, request, launch())
        if entry.request != request:
            message = "this idempotency-key was used to start another process; use a new key for each"
            raise RpcError(Code.ALREADY_EXISTS, message)
        return entry.task

    def _add(self, key: str, request: bytes, task: asyncio.Task[Started]) -> asyncio.Task[Started]:
        if len(self._entries) >= _MOST:
            self._forget(next(iter(self._entries)))
        entry = self._entries[key] = _Entry(request, task)

        def launched(_: asyncio.Task[Started]) -> None:
            if (
                task.cancelled() or task.exception() is not None
            ):  # nothing was started, so it may be tried again
                self._forget(key, entry)

        task.add_done_callback(launched)
        asyncio.get_running_loop().call_later(WINDOW, self._forget, key, entry)
        return task

    def _forget(self, key: str, entry: _Entry | None = None) -> None:
        found = self._entries.get(key)
        if found is None or (entry is not None and found is not entry):
            return
        del self._entries[key]
        task = found.task
        if task.done() and not task.cancelled() and task.exception() is None:
            task.result().running.output.forget()
