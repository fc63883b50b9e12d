"""The threads of a pool, which make sandboxes, have them cleaned, and kill them.

A few stay when there is nothing to do, because at the exit of the process no new ones can be started.
"""

from __future__ import annotations

import contextvars
import queue
import time
import weakref
from typing import Any

from sandbox_sync import lifecycle
from sandbox_sync.ambient import deadline
from sandbox_sync.deadlines import Deadline
from sandbox_sync.errors import SandboxException
from sandbox_sync.pool_slots import Settings, Slot, Slots
from sandbox_sync.sandbox import Sandbox
from sandbox_sync.transport import threads

RECYCLE_SECONDS = 30.0
"""How long the calls may take in which a sandbox is cleaned for its next user."""

_MOST_WORKERS = 32
_RESIDENT_WORKERS = 4
_KILL_SECONDS = 20.0
_LEAST_KILL = 0.1
_TICK = 1.0  # how soon it is noticed that something was dropped, or is too old
_FIRST_PAUSE, _LONGEST_PAUSE = 0.5, 30.0


class WorkedSlots(Slots):
    """The slots of a pool in one process, with the threads that work on them."""

    def __init__(self, settings: Settings, pool: weakref.ref[Any], *, closed: bool = False) -> None:
        super().__init__(settings, pool, closed=closed)
        self._workers: set[object] = set()
        self._led = False
        self._calls: queue.SimpleQueue[None] = queue.SimpleQueue()

    def drain(self, until: Deadline) -> None:
        """End everything, what is in use included, with the help of this thread: the process ends."""
        with self.lock:
            self.closed = True
            for slot in self._slots:
                if slot.stage in ("ready", "returned") and not slot.busy:
                    slot.stage = "ending"
            self.plan()
        while not until.expired:
            if not self.wait_for(lambda: not self.at_work or any(self._pending()), until):
                break
            with self.lock:
                taken = self._take()
            if taken is None:
                if not self.at_work:
                    return
                continue
            self._end(taken, max(_LEAST_KILL, until.remaining() or 0))
        if self.at_work:
            self.settings.log.warning(
                "%d sandboxes of the pool were not ended in time; their leases end them within %d s",
                self.at_work,
                self.settings.lease,
            )

    def _staff(self) -> None:
        workers = len(self._workers)
        pending = len(self._pending())
        free = workers - sum(slot.busy for slot in self._slots)
        for _ in range(min(pending, free) if not self.closed else workers):
            self._calls.put(None)  # one too many does no harm
        for _ in range(min(pending - free, _MOST_WORKERS - workers)):
            run = contextvars.Context().run  # an empty one: no caller's deadline bounds it
            worker = object()
            try:
                threads.start("sandbox-sync-pool", run, self._work, worker)
            except SandboxException as error:
                if not workers and self._line:
                    caller = self._line.popleft()
                    caller.error = error
                    caller.wake()
                break
            self._workers.add(worker)

    def _work(self, worker: object) -> None:
        with self.lock:
            self._workers.add(worker)  # who has started it may have been interrupted
        try:
            while (slot := self._next(worker)) is not None:
                if slot.stage == "making":
                    self._make(slot)
                elif slot.stage == "returned":
                    self._clean(slot)
                else:
                    self._end(slot, _KILL_SECONDS)
        finally:
            with self.lock:
                self._workers.discard(worker)

    def _next(self, worker: object) -> Slot | None:
        """The next slot to work on; None for a thread that is not needed any more."""
        leads = False
        while True:
            with self.lock:
                slot = self._take()
                if slot is not None:
                    if leads:
                        self._calls.put(None)  # for another one to look after the time
                    return slot
                if self.closed or len(self._workers) > _RESIDENT_WORKERS:
                    self._workers.discard(worker)
                    return None
                leads, self._led = not self._led, True  # one of them looks after the time
            try:
                self._calls.get(timeout=_TICK if leads else None)
            except queue.Empty:
                with self.lock:
                    self.plan()
            if leads:
                self._led = False

    def _pending(self) -> list[Slot]:
        # Room is made before it is filled.
        pending = [slot for slot in list(self._slots) if slot.pending]
        return sorted(pending, key=lambda slot: slot.stage == "making")

    def _take(self) -> Slot | None:
        for slot in self._pending():
            slot.busy = True
            return slot
        return None

    def _make(self, slot: Slot) -> None:
        try:
            sandbox = Sandbox.create(**self.settings.create, lease=self.settings.lease)
        except Exception as error:  # noqa: BLE001  # whatever it is, the caller in line has to hear of it
            self._failed(slot, error)
            return
        with self.lock:
            now = time.monotonic()
            self._failures = 0
            self.counts["made"] += 1
            slot.made = now
            slot.hold(sandbox, now)
            self._done(slot)

    def _failed(self, slot: Slot, error: Exception) -> None:
        if not isinstance(error, SandboxException):
            error = SandboxException(f"No sandbox could be made: {type(error).__name__}: {error}")
        with self.lock:
            self._slots.remove(slot)
            self.counts["failed"] += 1
            self.failure = error
            pause = min(_FIRST_PAUSE * 2**self._failures, _LONGEST_PAUSE)
            pause = max(pause, error.retry_after or 0)
            self._failures = min(self._failures + 1, 10)
            self._resume_at = time.monotonic() + pause
            heard = bool(self._line)
            if heard:
                self._line[0].error = error
                self._line.popleft().wake()
            self._done(slot)
        if not heard:
            log = self.settings.log
            log.warning("a sandbox for the pool was not made, is tried again in %.1f s: %s", pause, error)

    def _clean(self, slot: Slot) -> None:
        sandbox, recycle = slot.sandbox, self.settings.recycle
        clean = False
        try:
            if sandbox is not None and recycle is not None:
                with deadline(RECYCLE_SECONDS):
                    clean = recycle(sandbox) is True and sandbox._lease is not None
        except Exception as error:  # noqa: BLE001  # the caller's function; what it left is not handed out
            name = type(error).__name__
            self.settings.log.warning(
                "sandbox %s was not cleaned for reuse, and is killed: %s: %s", slot.known[1], name, error
            )
        with self.lock:
            if clean and sandbox is not None:
                slot.hold(sandbox, time.monotonic())
            else:
                slot.stage = "ending"
            self._done(slot)

    def _end(self, slot: Slot, limit: float | None) -> None:
        config, sandbox_id = slot.known
        if slot.dropped:
            self.settings.log.warning(
                "sandbox %s was never given back to its pool, and nothing refers to it any more; it is "
                "killed. Use `with pool.sandbox() as sandbox:`",
                sandbox_id,
            )
        sandbox = slot.sandbox
        if sandbox is None and slot.reference is not None:
            sandbox = slot.reference()
        if sandbox is not None and sandbox._lease is not None:
            sandbox._lease.ended = True  # whoever still refers to it does not keep it
        try:
            lifecycle.kill(config, sandbox_id, limit)
        except Exception as error:  # noqa: BLE001  # it must not keep its room for ever
            self.settings.log.warning(
                "sandbox %s was not killed; its lease ends it within %d s: %s",
                sandbox_id,
                self.settings.lease,
                error,
            )
        with self.lock:
            self._slots.remove(slot)
            self._done(slot)

    def _done(self, slot: Slot) -> None:
        slot.busy = False
        self.plan()
