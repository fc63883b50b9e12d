"""`SandboxPool`: warm sandboxes for request handlers and workers."""

from __future__ import annotations

import atexit
import copy
import logging
import time
import weakref
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from types import TracebackType
from typing import TYPE_CHECKING, Any

from sandbox_sync import lease as leases
from sandbox_sync.ambient import by, exceeded
from sandbox_sync.deadlines import Deadline, seconds
from sandbox_sync.errors import (
    DeadlineExceededException,
    IncompleteCallException,
    InvalidArgumentException,
    PoolClosedException,
    PoolTimeoutException,
    SandboxException,
    SandboxNotFoundException,
)
from sandbox_sync.models.pools import PoolStats
from sandbox_sync.options import ApiParams, SandboxNetworkOpts
from sandbox_sync.pool_slots import Caller, Settings, Slot
from sandbox_sync.pool_workers import WorkedSlots
from sandbox_sync.sandbox import Sandbox
from sandbox_sync.transport import forks

if TYPE_CHECKING:
    from typing_extensions import Self, Unpack

CLOSE_SECONDS = 5.0
"""How long a pool is waited for that is closed, and how long all are at exit."""

_CHECK_SECONDS = 3.0
_TRUSTED_SECONDS = 1.0  # a sandbox that answered this short a time ago is handed out without asking it


class SandboxPool:
    """Keeps sandboxes warm, and hands each out to one caller at a time: at once if one is ready.

    Make one for a program, at module level, and take sandboxes from it with `with pool.sandbox() as sandbox:`
    in any thread. Constructing it starts no thread and makes nothing; its first use does.

    Every sandbox is used once: when it is given back it is killed in the background, and a fresh one is made
    in its place. So nobody meets what another one left. Where a fresh one is too dear, `recycle` may clean a
    sandbox for its next user instead; that is only as safe as the function is thorough.

    Sandboxes are leased: when the process dies, even by SIGKILL, they end within `lease` seconds. At the
    regular end of the process they are killed, those in use too.

    A forked child has a pool of its own, empty, with the same settings: each worker of a server that forks
    keeps `min` ready and has at most `max`. What the parent has taken from its pool stays the parent's;
    giving it back in the child does nothing. A pool does not pickle.

    Args:
        min: How many are kept ready, beside those in use, as far as `max` allows.
        max: How many there are at most at any time, those in use and those being made or killed included.
        template: Name or id of their template; `Sandbox.default_template` when left out.
        recycle: Called with a sandbox that was given back, in the background: cleans it, its processes
            included, and returns True if it may be handed out again. It is killed if it returns anything
            else, raises, takes longer than 30 seconds in calls, or if the block that used it ended by an
            `IncompleteCallException`. When left out, no sandbox is used twice.
        max_uses: How often a sandbox is handed out at most; no limit when left out.
        max_age: Seconds after which one that is ready is replaced; None or 0 for no limit.
        max_idle: Seconds after which one that is ready and not one of the `min` is killed; None or 0 for no
            limit.
        wait: How long a caller waits for a sandbox in seconds, unless it says so itself; None or 0 for no
            limit.
        lease: How many seconds a sandbox outlives its process, 3 or more.
        metadata: As for `Sandbox.create`.
        envs: As for `Sandbox.create`.
        allow_internet_access: As for `Sandbox.create`.
        network: As for `Sandbox.create`.
        **options: See `ApiParams`.

    Raises:
        InvalidArgumentException: An argument cannot be used.

    Example:
        >>> pool = SandboxPool(min=2, max=10)
        >>> with pool.sandbox(timeout=5) as sandbox:
        ...     print(sandbox.commands.run("echo hello").stdout)
    """

    def __init__(
        self,
        min: int = 2,
        max: int = 10,
        template: str | None = None,
        recycle: Callable[[Sandbox], bool] | None = None,
        *,
        max_uses: int | None = None,
        max_age: float | None = 1800,
        max_idle: float | None = 300,
        wait: float | None = 30,
        lease: int = 30,
        metadata: Mapping[str, str] | None = None,
        envs: Mapping[str, str] | None = None,
        allow_internet_access: bool | None = None,
        network: SandboxNetworkOpts | None = None,
        **options: Unpack[ApiParams],
    ) -> None:
        _require_count("min", min, 0)
        _require_count("max", max, 1)
        if min > max:
            raise InvalidArgumentException(f"min must not be more than max; got min={min} and max={max}")
        if max_uses is not None:
            _require_count("max_uses", max_uses, 1)
        if recycle is not None and not callable(recycle):
            raise InvalidArgumentException(
                "recycle has to be a function that cleans a sandbox and returns whether it may be used "
                f"again; got {recycle!r}. How old sandboxes may become is max_age"
            )
        _require_known(options)
        leases.lifetime(None, lease)
        create: dict[str, Any] = {
            "template": template,
            "metadata": metadata,
            "envs": envs,
            "allow_internet_access": allow_internet_access,
            "network": network,
            **options,
        }
        self._settings = Settings(
            min=min,
            max=max,
            recycle=recycle,
            max_uses=max_uses,
            max_age=seconds(max_age, "max_age"),
            max_idle=seconds(max_idle, "max_idle"),
            wait=seconds(wait, "wait"),
            lease=lease,
            create=create,
            log=options.get("logger") or logging.getLogger("sandbox_sync"),
        )
        self._inherited: list[WorkedSlots] = []
        self._current = WorkedSlots(self._settings, weakref.ref(self))
        _pools.add(self)
        _living.add(self._current)

    def sandbox(self, timeout: float | None = None) -> AbstractContextManager[Sandbox]:
        """A sandbox for a `with` block, given back when the block ends. It must not be used afterwards.

        Args:
            timeout: As for `acquire`, counted from the beginning of the block.

        Raises:
            PoolTimeoutException: As from `acquire`, like the others, when the block begins.
            PoolClosedException: As from `acquire`.
            SandboxException: As from `acquire`.
        """
        return self._lent(timeout)

    @contextmanager
    def _lent(self, timeout: float | None) -> Iterator[Sandbox]:
        sandbox = self.acquire(timeout)
        reuse = True
        try:
            yield sandbox
        except BaseException as error:
            # Something of the block may still go on in it, or it may be broken.
            reuse = isinstance(error, Exception) and not isinstance(
                error, (IncompleteCallException, SandboxNotFoundException)
            )
            raise
        finally:
            self.release(sandbox, reuse=reuse)

    def acquire(self, timeout: float | None = None) -> Sandbox:
        """A sandbox for the caller alone, who has to `release` it: prefer `with pool.sandbox()`.

        One that is ready is handed out at once, after a look whether it lives. Otherwise one is made if there
        are fewer than `max`, or the caller waits for its turn: who came first is served first.

        Args:
            timeout: How long to wait at most in seconds; 0 for no limit, the pool's `wait` when left out. The
                block of a `deadline` bounds it, too.

        Returns:
            The sandbox, which runs.

        Raises:
            PoolTimeoutException: None was free in time. It tells what the pool was doing.
            DeadlineExceededException: The time of the `with deadline(...)` block was up first.
            PoolClosedException: The pool was closed.
            SandboxException: One had to be made, and could not be.
        """
        limit = self._settings.wait if timeout is None else seconds(timeout, "timeout")
        deadline = by(limit)
        slots = self._slots
        first = False
        while True:
            caller = Caller()
            try:
                slot = self._wait_for_turn(slots, caller, deadline, limit, first=first)
                if self._is_well(slot, deadline):
                    return slots.lend(slot)
                slots.reject(slot)
                first = True  # the turn is kept
            except BaseException:
                slots.leave(caller)
                raise

    def release(self, sandbox: Sandbox, *, reuse: bool = True) -> None:
        """Give a sandbox back that `acquire` handed out. What becomes of it is done in the background.

        Args:
            sandbox: The sandbox. It must not be used any more.
            reuse: Whether it may be cleaned for another user, if the pool recycles; otherwise it is killed.

        Raises:
            InvalidArgumentException: It is not of this pool, or was given back already.
        """
        slots = self._slots
        with slots.lock:
            slot = slots.lent_slot(sandbox)
            if slot is not None:
                slots.take_back(slot, sandbox, reusable=reuse)
                return
        if not any(parents.lent_slot(sandbox) for parents in self._inherited):
            raise InvalidArgumentException(
                "This sandbox was not handed out by this pool, or it was given back already",
                sandbox_id=sandbox.sandbox_id,
            )

    def warm(self, timeout: float | None = None) -> None:
        """Make sandboxes until `min` are ready, and wait for them: for the start of a worker.

        Args:
            timeout: How long to wait at most in seconds; 0 for no limit, the pool's `wait` when left out. The
                block of a `deadline` bounds it, too.

        Raises:
            PoolTimeoutException: They were not ready in time. They are still being made.
            DeadlineExceededException: The time of the `with deadline(...)` block was up first.
            PoolClosedException: The pool was closed.
            SandboxException: One could not be made. It is tried again in the background.
        """
        limit = self._settings.wait if timeout is None else seconds(timeout, "timeout")
        deadline = by(limit)
        slots = self._slots
        failed = slots.counts["failed"]
        slots.fill()

        def over() -> bool:
            return slots.filled or slots.closed or slots.counts["failed"] > failed

        in_time = slots.wait_for(over, deadline)
        with slots.lock:
            if slots.filled:
                return
            if slots.counts["failed"] > failed and slots.failure is not None:
                raise copy.copy(slots.failure)  # others may be told of it, too
            if slots.closed:
                raise PoolClosedException("This SandboxPool was closed before it was warm")
        if not in_time:
            raise self._timed_out(slots, deadline, limit, "The pool was not warm")

    def stats(self) -> PoolStats:
        """What the pool's sandboxes are doing now, in this process."""
        return self._slots.stats()

    def close(self, timeout: float | None = CLOSE_SECONDS) -> None:
        """Kill the sandboxes that are ready, and hand out no more. Leaving the pool's `with` block does it.

        Who waits for a sandbox gets an error. Sandboxes in use are killed when they are given back. Closing
        it again is no error.

        Args:
            timeout: How many seconds to wait for the kills, and for what is just being made; 0 for no limit.
                What takes longer goes on in the background.
        """
        limit = seconds(timeout, "timeout")
        deadline = Deadline.after(limit)
        slots = self._slots
        slots.close()
        if not slots.wait_for(lambda: not slots.at_work, deadline):
            self._settings.log.warning(
                "%d sandboxes of a closed pool are still being ended after %g s; if this process ends "
                "first, their leases end them within %d s",
                slots.at_work,
                limit,
                self._settings.lease,
            )

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def __repr__(self) -> str:
        stats = self.stats()
        state = "closed, " if self._slots.closed else ""
        return f"<{type(self).__name__} {state}{stats.idle} ready, {stats.in_use} of {stats.max} in use>"

    def __reduce__(self) -> tuple[Any, ...]:
        raise TypeError(
            "A SandboxPool does not pickle: its sandboxes belong to this process. Make one in each process, "
            "at module level; forked processes have their own of the same settings"
        )

    def _wait_for_turn(
        self, slots: WorkedSlots, caller: Caller, deadline: Deadline, limit: float | None, *, first: bool
    ) -> Slot:
        if deadline.expired:
            raise self._timed_out(slots, deadline, limit, "No sandbox of the pool was free")
        slots.enter(caller, first=first)
        while True:
            in_time = caller.wait(deadline)
            with slots.lock:
                slot = slots.granted(caller)
                if slot is not None:
                    return slot
                if caller.error is not None:
                    raise caller.error
                if not in_time:
                    raise self._timed_out(slots, deadline, limit, "No sandbox of the pool was free")

    def _is_well(self, slot: Slot, deadline: Deadline) -> bool:
        sandbox = slot.sandbox
        assert sandbox is not None
        if time.monotonic() - slot.seen < _TRUSTED_SECONDS:
            return True
        left = deadline.remaining()
        limit = _CHECK_SECONDS if left is None else max(0.01, min(_CHECK_SECONDS, left))
        try:
            if sandbox._open().envd.is_healthy(limit):
                slot.seen = time.monotonic()
                return True
            why = "the service says that it does not run"
        except DeadlineExceededException:
            raise  # the caller's time was up, which says nothing of the sandbox
        except SandboxException as error:
            why = str(error)
        self._settings.log.info("sandbox %s of the pool is replaced: %s", sandbox.sandbox_id, why)
        return False

    def _timed_out(
        self, slots: WorkedSlots, deadline: Deadline, limit: float | None, what: str
    ) -> SandboxException:
        with slots.lock:
            slots.counts["timed_out"] += 1
            stats = slots.stats()
            cause = slots.failure if slots.failing else None
        state = (
            f"of at most {stats.max} sandboxes {stats.in_use} are in use, {stats.idle} ready, "
            f"{stats.making} being made and {stats.ending} being ended; callers in line: {stats.waiting}"
        )
        if deadline.block is not None:
            return exceeded(deadline.block, f"{what}: {state}", None)
        if stats.in_use + stats.ending >= stats.max:
            advice = "Give sandboxes back sooner, give the pool a larger max, or wait longer"
        else:
            advice = (
                "They are not made as fast as they are wanted: give the pool a larger min, or wait longer"
            )
        error = PoolTimeoutException(f"{what} within {limit or 0:g} s: {state}. {advice} (wait, timeout)")
        error.limit = limit
        error.stats = stats
        error.__cause__ = cause
        return error

    @property
    def _slots(self) -> WorkedSlots:
        """The slots of this process."""
        forks.check()
        return self._current

    def _after_fork(self) -> None:
        """This process is a fork: what there is belongs to its parent, and its locks may be held for ever."""
        self._inherited.append(self._current)
        self._current = WorkedSlots(self._settings, weakref.ref(self), closed=self._current.closed)
        _living.add(self._current)


def _require_count(name: str, value: Any, least: int) -> None:
    if not isinstance(value, int) or isinstance(value, bool) or value < least:
        raise InvalidArgumentException(f"{name} has to be a whole number, {least} or more; got {value!r}")


def _require_known(options: Mapping[str, Any]) -> None:
    unknown = [name for name in options if name not in ApiParams.__annotations__]
    if "timeout" in unknown:
        raise InvalidArgumentException(
            "A pool takes no timeout: its sandboxes live while their leases are renewed. "
            "How long callers wait is wait"
        )
    if unknown:
        raise InvalidArgumentException(f"A pool knows no {', '.join(unknown)}")


_pools: weakref.WeakSet[SandboxPool] = weakref.WeakSet()
_living: weakref.WeakSet[WorkedSlots] = weakref.WeakSet()


def _in_child() -> None:
    _living.clear()
    for pool in list(_pools):
        pool._after_fork()


def _at_exit() -> None:
    """End what there is. Nothing is waited for longer than CLOSE_SECONDS: there are the leases."""
    forks.check()
    deadline = Deadline.after(CLOSE_SECONDS)
    living = list(_living)
    for slots in living:
        slots.close()
    for slots in living:
        slots.drain(deadline)


forks.in_child(_in_child)
atexit.register(_at_exit)
