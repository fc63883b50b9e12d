"""One creation per Idempotency-Key, however often and however concurrently it is asked for."""

from __future__ import annotations

import asyncio
import re
import time
from dataclasses import dataclass

from sandbox_local.control.errors import BadRequest, Conflict
from sandbox_local.control.plan import Plan
from sandbox_local.control.registry import Registry, Sandbox

# A retry comes within minutes; a day is what services with such keys commonly promise.
WINDOW = 24 * 3600.0
MOST_KEYS = 10_000

_KEY = re.compile(r"[A-Za-z0-9_-]{1,255}")


@dataclass(frozen=True)
class _Entry:
    at: float
    request: bytes
    task: asyncio.Task[Sandbox]


class Creations:
    """Creates sandboxes for requests that may be repeated, and for those that may not.

    Args:
        registry: Makes the sandboxes.
    """

    def __init__(self, registry: Registry) -> None:
        self._registry = registry
        self._entries: dict[str, _Entry] = {}

    async def create(self, plan: Plan, request: bytes, key: str | None) -> Sandbox:
        """Create a sandbox, or return the one that an equal request with the same key has created.

        If the one who asks without a key goes away before the answer, nobody knows of the sandbox, and it is
        ended again; with a key it stays for the request that asks again.

        Args:
            plan: What to create.
            request: What tells this request from another.
            key: The Idempotency-Key, if there is one.

        Raises:
            BadRequest: The key is malformed.
            Conflict: The key was used for another request, or its sandbox has ended.
            HttpError: The creation is refused.
        """
        if key is None:
            return await self._create_once(plan)
        if not _KEY.fullmatch(key):
            raise BadRequest("Idempotency-Key: must be 1 to 255 letters, digits, '-' or '_'")
        self._forget_old()
        entry = self._entries.get(key)
        if entry is None:
            entry = _Entry(time.monotonic(), request, self._registry.create(plan))
            self._entries[key] = entry
            entry.task.add_done_callback(lambda task: self._forget_failed(key, task))
        elif entry.request != request:
            raise Conflict(
                "this Idempotency-Key was used for a create request with other parameters; "
                "use one new key for each sandbox"
            )
        sandbox = await asyncio.shield(entry.task)
        if self._registry.find(sandbox.sandbox_id) is None:
            raise Conflict(
                f"sandbox {sandbox.sandbox_id}, created with this Idempotency-Key, has ended; "
                "use a new key for a new sandbox"
            )
        return sandbox

    async def _create_once(self, plan: Plan) -> Sandbox:
        task = self._registry.create(plan)
        try:
            return await asyncio.shield(task)
        except asyncio.CancelledError:
            task.add_done_callback(self._registry.discard)
            raise

    def _forget_failed(self, key: str, task: asyncio.Task[Sandbox]) -> None:
        entry = self._entries.get(key)
        if entry is not None and entry.task is task and (task.cancelled() or task.exception() is not None):
            del self._entries[key]

    def _forget_old(self) -> None:
        """Forget what is out of the window, and the oldest of too many; entries are in order of age."""
        horizon = time.monotonic() - WINDOW
        for key, entry in list(self._entries.items()):
            if entry.at > horizon and len(self._entries) < MOST_KEYS:
                break
            del self._entries[key]
