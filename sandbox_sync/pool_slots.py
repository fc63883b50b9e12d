"""What a pool is made of: slots for sandboxes, callers in line for them, and what has to be done next.

What there is to do is always told from the slots alone, and each changes from one stage to the next in a
single assignment. So an exception out of a signal handler, wherever it strikes, loses no sandbox and no slot.
The lock is held for no longer than it takes to look.
"""

from __future__ import annotations

import logging
import time
import weakref
from collections import Counter, deque
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Literal

from sandbox_sync.errors import PoolClosedException, SandboxException
from sandbox_sync.models.pools import PoolStats
from sandbox_sync.sandbox import Sandbox
from sandbox_sync.transport.conditions import Condition, Waiter

Recycle = Callable[[Sandbox], bool]


@dataclass(frozen=True)
class Settings:
    """How a pool was asked to be. `create` are the options for `Sandbox.create`."""

    min: int
    max: int
    recycle: Recycle | None
    max_uses: int | None
    max_age: float | None
    max_idle: float | None
    wait: float | None
    lease: int
    create: dict[str, Any] = field(repr=False)
    log: logging.Logger = field(repr=False)


class Caller(Waiter):
    """Who waits in line for a sandbox.

    Attributes:
        error: Why it gets none.
    """

    def __init__(self) -> None:
        super().__init__()
        self.error: SandboxException | None = None


class Slot:
    """Room for one sandbox, from before it is made until after it has ended.

    Attributes:
        stage: "making", "ready" (and lent, if there is a `borrower`), "returned" to be cleaned, or "ending".
        busy: Whether a thread is at work on it.
        sandbox: The sandbox; None while it is lent, so that one that its borrower drops is noticed.
        reference: The sandbox that was handed out.
        dropped: Whether its borrower forgot it.
    """

    def __init__(self) -> None:
        self.stage: Literal["making", "ready", "returned", "ending"] = "making"
        self.busy = False
        self.dropped = False
        self.borrower: Caller | None = None
        self.sandbox: Sandbox | None = None
        self.reference: weakref.ref[Sandbox] | None = None
        self.known: Any = None  # configuration and id, to end it with
        self.made = self.seen = self.idle_since = 0.0
        self.uses = 0

    @property
    def idle(self) -> bool:
        """Whether it can be handed out."""
        return self.stage == "ready" and self.borrower is None

    @property
    def lent(self) -> bool:
        """Whether a caller has it."""
        return self.stage == "ready" and self.borrower is not None

    @property
    def pending(self) -> bool:
        """Whether it waits for a thread to do something about it."""
        return self.stage != "ready" and not self.busy

    def hold(self, sandbox: Sandbox, now: float) -> None:
        """Be ready with a sandbox."""
        self.known = sandbox.connection_config, sandbox.sandbox_id
        self.sandbox, self.reference, self.borrower = sandbox, None, None
        self.seen = self.idle_since = now
        self.stage = "ready"


class Slots(Condition):
    """The slots of a pool in one process, and who works on them."""

    def __init__(self, settings: Settings, pool: weakref.ref[Any], *, closed: bool = False) -> None:
        super().__init__()
        self.settings = settings
        self.closed = closed
        self.counts: Counter[str] = Counter()
        self.failure: SandboxException | None = None
        self._pool = pool
        self._slots: list[Slot] = []
        self._line: deque[Caller] = deque()
        self._failures = 0
        self._resume_at = 0.0

    def enter(self, caller: Caller, *, first: bool = False) -> None:
        """Put a caller in line; it may have a sandbox at once."""
        with self.lock:
            if self.closed:
                raise _closed()
            (self._line.appendleft if first else self._line.append)(caller)
            self.plan()

    def leave(self, caller: Caller) -> None:
        """Take a caller out of the line, and the sandbox back that it may have been given and has not got."""
        with self.lock:
            if caller in self._line:
                self._line.remove(caller)
            slot = self.granted(caller)
            if slot is not None and slot.sandbox is not None:
                slot.reference = None
                slot.borrower = None
            self.plan()

    def granted(self, caller: Caller) -> Slot | None:
        """The slot that a caller was given."""
        with self.lock:
            return next((slot for slot in self._slots if slot.lent and slot.borrower is caller), None)

    def lend(self, slot: Slot) -> Sandbox:
        """Hand out the sandbox of a slot that was granted: from here on its borrower alone refers to it."""
        with self.lock:
            sandbox = slot.sandbox
            assert sandbox is not None
            slot.uses += 1
            self.counts["lent"] += 1
            slot.reference = weakref.ref(sandbox)
            slot.sandbox = None
            return sandbox

    def lent_slot(self, sandbox: Sandbox) -> Slot | None:
        """The slot of a sandbox that is handed out."""
        for slot in list(self._slots):
            if slot.lent and slot.reference is not None and slot.reference() is sandbox:
                return slot
        return None

    def take_back(self, slot: Slot, sandbox: Sandbox, *, reusable: bool) -> None:
        """End a sandbox that was handed out, or have it cleaned."""
        with self.lock:
            settings = self.settings
            young = settings.max_age is None or time.monotonic() - slot.made < settings.max_age
            unused = settings.max_uses is None or slot.uses < settings.max_uses
            if reusable and settings.recycle and young and unused and not self.closed:
                slot.sandbox = sandbox
                slot.stage = "returned"
            else:
                slot.stage = "ending"
            self.plan()

    def reject(self, slot: Slot) -> None:
        """Replace a sandbox that is of no use."""
        with self.lock:
            self.counts["unhealthy"] += 1
            slot.stage = "ending"
            self.plan()

    def fill(self) -> None:
        """Keep the minimum ready from now on, and try so at once."""
        with self.lock:
            if self.closed:
                raise _closed()
            self._resume_at = 0.0
            self.plan()

    @property
    def filled(self) -> bool:
        """Whether as many are ready as have to be, or as there is room for beside those in use."""
        lent = sum(slot.lent for slot in self._slots)
        return sum(slot.idle for slot in self._slots) >= min(self.settings.min, self.settings.max - lent)

    @property
    def at_work(self) -> int:
        """How many are being made, cleaned or killed."""
        return sum(slot.stage != "ready" for slot in self._slots)

    @property
    def failing(self) -> bool:
        """Whether the last one that was to be made could not be."""
        return self._failures > 0

    def stats(self) -> PoolStats:
        """What there is."""
        with self.lock:
            slots = self._slots
            return PoolStats(
                min=self.settings.min,
                max=self.settings.max,
                idle=sum(slot.idle for slot in slots),
                in_use=sum(slot.lent for slot in slots),
                making=sum(slot.stage == "making" for slot in slots),
                ending=sum(slot.stage in ("returned", "ending") for slot in slots),
                waiting=len(self._line),
                **self.counts,
            )

    def close(self) -> None:
        """Hand out no more, wake who waits, and end what is not in use."""
        with self.lock:
            self.closed = True
            self.plan()

    def plan(self) -> None:
        """Match sandboxes and callers, decide what to make and to end, and see to it that somebody does it.

        It is called after every change, with the lock. Called again it changes nothing.
        """
        self._reclaim()
        if self.closed or self._pool() is None:
            self._wind_up()
        else:
            self._retire()
            self._match()
            self._grow()
        self._staff()
        self.notify_all()

    def _reclaim(self) -> None:
        """Take back what was dropped; and make good what an interrupted call has begun."""
        for slot in list(self._slots):
            if not slot.lent:
                continue
            assert slot.borrower is not None
            if slot.reference is None:
                slot.borrower.wake()
                continue
            slot.sandbox = None
            if slot.reference() is None:
                self.counts["dropped"] += 1
                slot.dropped = True
                slot.stage = "ending"
        while self._line and self.granted(self._line[0]):
            self._line.popleft()

    def _wind_up(self) -> None:
        self.closed = True
        for slot in list(self._slots):
            if slot.stage == "making" and not slot.busy:
                self._slots.remove(slot)
            elif slot.idle or (slot.stage == "returned" and not slot.busy):
                slot.stage = "ending"
        while self._line:
            self._line[0].error = _closed()
            self._line.popleft().wake()

    def _retire(self) -> None:
        now, settings = time.monotonic(), self.settings
        idle = sorted((slot for slot in self._slots if slot.idle), key=lambda slot: slot.idle_since)
        if settings.max_idle is not None:
            for slot in idle[: max(0, len(idle) - settings.min)]:
                if now - slot.idle_since > settings.max_idle:
                    slot.stage = "ending"
        if settings.max_age is not None and not self.at_work:  # one at a time, or there would be none ready
            for slot in idle:
                if slot.idle and now - slot.made > settings.max_age:
                    slot.stage = "ending"
                    break

    def _match(self) -> None:
        """The caller that waits longest gets the sandbox that was idle for the shortest time."""
        for slot in sorted((slot for slot in self._slots if slot.idle), key=lambda slot: -slot.idle_since):
            if not self._line:
                break
            slot.borrower = self._line[0]
            self._line.popleft().wake()

    def _grow(self) -> None:
        slots, settings = self._slots, self.settings
        spare = max(0, settings.min - sum(slot.idle for slot in slots))
        if self._failures:
            spare = min(spare, 1) if time.monotonic() >= self._resume_at else 0
        wanted = len(self._line) + spare - sum(slot.stage == "making" for slot in slots)
        for _ in range(min(wanted, settings.max - len(slots))):
            slots.append(Slot())

    def _staff(self) -> None:
        """See to it that there are threads for what is pending."""
        raise NotImplementedError


def _closed() -> PoolClosedException:
    return PoolClosedException(
        "This SandboxPool is closed, and hands out no more sandboxes. Make another one"
    )
