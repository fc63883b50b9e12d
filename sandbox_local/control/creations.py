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

_LOOKS = 3
"""Turns of the event loop before an answer: what it sees of a client that has gone cancels the request."""

_KEY = re.compile(r"[A-Za-z0-9_-]{1,255}")


@dataclass(slots=True)
class _Entry:
    """What a key was used for, and the id of the sandbox that came of it: the sandbox itself may end. There
    may be many, so there is no more in it than that.
    """

    at: float
    request: bytes
    sandbox_id: str | asyncio.Task[str]


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
            request: What tells this request from another, in a few bytes, for they are kept.
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
            making = asyncio.get_running_loop().create_task(_id_of(self._registry.create(plan)))
            entry = self._entries[key] = _Entry(time.monotonic(), request, making)
            making.add_done_callback(lambda made: self._note(key, made))
        elif entry.request != request:
            raise Conflict(
                "this Idempotency-Key was used for a create request with other parameters; "
                "use one new key for each sandbox"
            )
        sandbox_id = entry.sandbox_id
        if not isinstance(sandbox_id, str):
            sandbox_id = await asyncio.shield(sandbox_id)
        sandbox = self._registry.find(sandbox_id)
        if sandbox is None:
            raise Conflict(
                f"sandbox {sandbox_id}, created with this Idempotency-Key, has ended; "
                "use a new key for a new sandbox"
            )
        return sandbox

    async def _create_once(self, plan: Plan) -> Sandbox:
        task = self._registry.create(plan)
        try:
            sandbox = await asyncio.shield(task)
            for _ in range(_LOOKS):
                await asyncio.sleep(0)
            return sandbox
        except asyncio.CancelledError:
            task.add_done_callback(self._registry.discard)
            raise

    def _note(self, key: str, made: asyncio.Task[str]) -> None:
        """Keep the id of what was made; forget what failed."""
        entry = self._entries.get(key)
        if entry is None or entry.sandbox_id is not made:
            return
        if made.cancelled() or made.exception() is not None:
            del self._entries[key]
        else:
            entry.sandbox_id = made.result()

    def _forget_old(self) -> None:
        """Forget what is out of the window, and the oldest of too many; entries are in order of age."""
        horizon = time.monotonic() - WINDOW
        while self._entries:
            key, entry = next(iter(self._entries.items()))
            if entry.at > horizon and len(self._entries) < MOST_KEYS:
                break
            del self._entries[key]


async def _id_of(made: asyncio.Task[Sandbox]) -> str:
    return (await made).sandbox_id
