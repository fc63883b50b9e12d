"""The sandboxes of this server: what each is, and what becomes of it from create to end.

A sandbox is running or paused until it ends, and it ends once, for one reason: killed, out of time, its box
died, or the server stops. Whoever asks for a change waits for it, and the change itself runs in a task of the
registry's own, so a caller that goes away leaves nothing half done.
"""

from __future__ import annotations

import asyncio
import enum
import logging
import secrets
import string
from collections.abc import Coroutine
from dataclasses import dataclass, field
from datetime import datetime, timezone
from typing import Any, Protocol, TypeVar

from sandbox_local.control.errors import Conflict, SandboxNotFound
from sandbox_local.control.events import EventLog
from sandbox_local.control.lease import Lease
from sandbox_local.control.plan import Plan
from sandbox_local.egress.gateway import Egress, Gateway
from sandbox_local.egress.policy import Policy
from sandbox_local.envd.metrics import Metrics
from sandbox_local.http import HttpError, Request, Response
from sandbox_local.isolation.base import (
    Backend,
    Box,
    BoxGone,
    BoxSpec,
    IsolationError,
    LauncherGone,
    Limits,
    NoAnswer,
)

T = TypeVar("T")

log = logging.getLogger(__name__)

_ID_LETTERS = string.ascii_lowercase + string.digits


class State(enum.Enum):
    """What a living sandbox is doing."""

    RUNNING = "running"
    PAUSED = "paused"


class Service(Protocol):
    """What answers requests to a sandbox; the registry only ends it."""

    async def handle(self, request: Request) -> Response:
        """Answer one request."""

    async def close(self) -> None:
        """End every stream."""


@dataclass(eq=False)
class Sandbox:
    """One living sandbox.

    Attributes:
        sandbox_id: Its id, "i" and twenty letters or digits.
        plan: What was asked for at its creation.
        box: The isolated environment.
        metrics: Measures what it uses.
        limits: What it may use.
        started_at: When it was created or last resumed, UTC.
        state: Running or paused.
        envd_access_token: What requests to envd must carry, or None when it is not secured.
        traffic_access_token: What requests to its ports must carry, or None when they are open.
        gateway: Its way out, or None where sandboxes have no network.
        events: What happened to it.
        envd: Its envd, once something asked for it.
    """

    sandbox_id: str
    plan: Plan
    box: Box
    metrics: Metrics
    limits: Limits
    started_at: datetime
    state: State = State.RUNNING
    envd_access_token: str | None = field(default=None, repr=False)
    traffic_access_token: str | None = field(default=None, repr=False)
    gateway: Gateway | None = field(default=None, repr=False)
    events: EventLog = field(default_factory=EventLog, repr=False)
    envd: Service | None = field(default=None, repr=False)
    _lease: Lease = field(default_factory=Lease, repr=False)
    _timer: asyncio.TimerHandle | None = field(default=None, repr=False)
    _change: asyncio.Lock = field(default_factory=asyncio.Lock, repr=False)
    _end: asyncio.Task[None] | None = field(default=None, repr=False)

    @property
    def end_at(self) -> datetime:
        """When its time is over, UTC; of a paused sandbox, when it was paused."""
        return self._lease.end_at

    @property
    def ending(self) -> bool:
        """Whether its end has begun (and perhaps come)."""
        return self._end is not None


class Registry:
    """Makes sandboxes, finds them, and ends them in time.

    Args:
        backend: Makes the boxes; started and closed by the caller.
        most: How many sandboxes may live at once.
        limits: What each may use.
        egress: Gives them a network, or None if they are to have none.

    Attributes:
        internet: Whether they have a network.
        limits: What each may use.
        last_end: When a sandbox last ended, by the clock of the event loop.
    """

    def __init__(self, backend: Backend, most: int, limits: Limits, egress: Egress | None = None) -> None:
        self._backend = backend
        self._most = most
        self.limits = limits
        self._egress = egress
        self.internet = egress is not None
        self._sandboxes: dict[str, Sandbox] = {}
        self._starting = 0
        self.last_end = asyncio.get_running_loop().time()
        self._tasks: set[asyncio.Task[Any]] = set()

    # Finding

    def __len__(self) -> int:
        """How many sandboxes live or are being made."""
        return len(self._sandboxes) + self._starting

    def living(self) -> list[Sandbox]:
        """Every sandbox that has not begun to end."""
        return [sandbox for sandbox in self._sandboxes.values() if not sandbox.ending]

    def find(self, sandbox_id: str) -> Sandbox | None:
        """The living sandbox of that id, or None."""
        sandbox = self._sandboxes.get(sandbox_id)
        return None if sandbox is None or sandbox.ending else sandbox

    def get(self, sandbox_id: str) -> Sandbox:
        """The living sandbox of that id.

        Raises:
            SandboxNotFound: There is none.
        """
        sandbox = self.find(sandbox_id)
        if sandbox is None:
            raise SandboxNotFound(sandbox_id)
        return sandbox

    # Beginning and end

    def create(self, plan: Plan) -> asyncio.Task[Sandbox]:
        """Start to make a sandbox; the task goes on whatever becomes of who waits for it.

        Raises:
            HttpError: 429, as many as may live at once do.
        """
        if len(self) >= self._most:
            raise HttpError(
                429, f"{self._most} sandboxes live, as many as this server allows; kill one and try again"
            )
        self._starting += 1
        return self._run(self._create(plan))

    async def _create(self, plan: Plan) -> Sandbox:
        sandbox_id = "i" + "".join(secrets.choice(_ID_LETTERS) for _ in range(20))
        try:
            box, gateway = await self._make(sandbox_id, plan)
        except LauncherGone as error:
            raise HttpError(503, f"the sandbox could not be made: {error}") from error
        except (IsolationError, BoxGone) as error:
            raise HttpError(500, f"this machine makes no more sandboxes: {error}") from error
        except OSError as error:
            log.error("no sandbox could be made: %s", error)
            raise HttpError(503, f"the sandbox could not be made: {error.strerror}") from error
        finally:
            self._starting -= 1
        now = datetime.now(timezone.utc)
        sandbox = Sandbox(
            sandbox_id,
            plan,
            box,
            Metrics(box, self.limits),
            self.limits,
            started_at=now,
            envd_access_token=secrets.token_hex(32) if plan.secure else None,
            traffic_access_token=None if plan.public_traffic else secrets.token_hex(32),
            gateway=gateway,
        )
        self._sandboxes[sandbox_id] = sandbox
        self._end_in(sandbox, plan.timeout)
        sandbox.events.add("sandbox created", template=plan.template.alias, timeout=str(plan.timeout))
        box.ended.add_done_callback(lambda ended: self._end(sandbox, f"its box ended: {_reason(ended)}"))
        return sandbox

    async def _make(self, sandbox_id: str, plan: Plan) -> tuple[Box, Gateway | None]:
        lease = await plan.template.lease()
        spec = BoxSpec(box_id=sandbox_id, limits=self.limits, template=lease.build_id)
        try:
            box = await self._backend.create(spec)
        except BaseException:
            lease.close()
            raise
        box.ended.add_done_callback(lambda _: lease.close())
        if self._egress is None:
            return box, None
        try:
            return box, await self._egress.open(box, plan.policy)
        except BaseException:
            await box.close()
            raise

    async def kill(self, sandbox_id: str) -> None:
        """End a sandbox; returns when nothing of it is left.

        Raises:
            SandboxNotFound: There is none, or it was ending already (then it has ended by now).
        """
        sandbox = self._sandboxes.get(sandbox_id)
        if sandbox is None:
            raise SandboxNotFound(sandbox_id)
        late = sandbox.ending
        await asyncio.shield(self._end(sandbox, "killed"))
        if late:
            raise SandboxNotFound(sandbox_id)

    def discard(self, created: asyncio.Task[Sandbox]) -> None:
        """End the sandbox of a creation that nobody waits for any more."""
        if not created.cancelled() and created.exception() is None:
            self._end(created.result(), "who asked for it went away before the answer")

    async def close(self) -> None:
        """End every sandbox, those that are being made included."""
        while self._tasks or self._sandboxes:
            for sandbox in self.living():
                self._end(sandbox, "the server stopped")
            await asyncio.wait(self._tasks)

    def _end(self, sandbox: Sandbox, reason: str) -> asyncio.Task[None]:
        if sandbox._end is None:
            if sandbox._timer is not None:
                sandbox._timer.cancel()
            log.info("sandbox %s ends: %s", sandbox.sandbox_id, reason)
            sandbox._end = self._run(self._take_apart(sandbox))
        return sandbox._end

    async def _take_apart(self, sandbox: Sandbox) -> None:
        try:
            if sandbox.envd is not None:
                await sandbox.envd.close()
        finally:
            try:
                if sandbox.gateway is not None:
                    await sandbox.gateway.close()
                await sandbox.box.close()
            finally:
                del self._sandboxes[sandbox.sandbox_id]
                self.last_end = asyncio.get_running_loop().time()

    # Network

    def set_policy(self, sandbox_id: str, policy: Policy) -> None:
        """Replace the rules of what a running sandbox may reach.

        Raises:
            SandboxNotFound: There is none.
            Conflict: It is paused, or has no network.
        """
        sandbox = self.get(sandbox_id)
        if sandbox.state is not State.RUNNING:
            raise Conflict(f"sandbox {sandbox_id} is paused; connect to it first")
        if sandbox.gateway is None:
            raise Conflict(f"sandbox {sandbox_id} has no network")
        sandbox.gateway.apply(policy)
        sandbox.events.add("network rules replaced")

    # Time

    def set_timeout(self, sandbox_id: str, seconds: int) -> None:
        """Let a running sandbox end `seconds` from now, sooner or later than it would have.

        Raises:
            SandboxNotFound: There is none.
            Conflict: It is paused.
        """
        sandbox = self.get(sandbox_id)
        if sandbox.state is not State.RUNNING:
            raise Conflict(f"sandbox {sandbox_id} is paused, so it has no timeout; connect to it first")
        self._end_in(sandbox, seconds)

    def extend(self, sandbox_id: str, seconds: int) -> None:
        """Let a running sandbox live `seconds` from now at least; a paused one is left as it is.

        Raises:
            SandboxNotFound: There is none.
        """
        sandbox = self.get(sandbox_id)
        if sandbox.state is State.RUNNING:
            self._extend(sandbox, seconds)

    def _extend(self, sandbox: Sandbox, seconds: int) -> None:
        if seconds > sandbox._lease.left:
            self._end_in(sandbox, seconds)

    def _end_in(self, sandbox: Sandbox, seconds: int) -> None:
        if sandbox._timer is not None:
            sandbox._timer.cancel()
        sandbox._lease.renew(seconds)
        sandbox._timer = asyncio.get_running_loop().call_later(seconds, self._time_is_over, sandbox)

    def _time_is_over(self, sandbox: Sandbox) -> None:
        sandbox._timer = None
        if sandbox.plan.auto_pause:
            self._run(self._pause_in_time(sandbox))
        else:
            self._end(sandbox, "its timeout was reached")

    async def _pause_in_time(self, sandbox: Sandbox) -> None:
        try:
            await self._pause(sandbox, unless_extended=True)
        except Exception:
            self._end(sandbox, "it could not be paused at its timeout")
            raise

    # Pause and resume

    async def pause(self, sandbox_id: str) -> None:
        """Stop every process of a sandbox where it stands, and its clock.

        Raises:
            SandboxNotFound: There is none, or it ended meanwhile.
            Conflict: It is paused already.
        """
        if not await asyncio.shield(self._run(self._pause(self.get(sandbox_id)))):
            raise Conflict(f"sandbox {sandbox_id} is paused already")

    async def connect(self, sandbox_id: str, seconds: int) -> tuple[Sandbox, bool]:
        """See to it that a sandbox runs, for `seconds` from now at least.

        Returns:
            The sandbox, and whether it was paused and is resumed now.

        Raises:
            SandboxNotFound: There is none, or it ended meanwhile.
            Conflict: It is being killed.
        """
        sandbox = self._sandboxes.get(sandbox_id)
        if sandbox is not None and sandbox.ending:
            raise Conflict(f"sandbox {sandbox_id} is being killed")
        sandbox = self.get(sandbox_id)
        return sandbox, await asyncio.shield(self._run(self._resume(sandbox, seconds)))

    async def resume(self, sandbox_id: str, seconds: int) -> Sandbox:
        """Let a paused sandbox go on, for `seconds` from now.

        Raises:
            SandboxNotFound: There is none, or it ended meanwhile.
            Conflict: It runs.
        """
        if self.get(sandbox_id).state is State.RUNNING:
            raise Conflict(f"sandbox {sandbox_id} runs already")
        return (await self.connect(sandbox_id, seconds))[0]

    async def _pause(self, sandbox: Sandbox, unless_extended: bool = False) -> bool:
        async with sandbox._change:
            if sandbox.state is State.PAUSED or (unless_extended and sandbox._timer is not None):
                return False
            try:
                await sandbox.box.freeze()
            except BoxGone:
                raise SandboxNotFound(sandbox.sandbox_id) from None
            if sandbox._timer is not None:
                sandbox._timer.cancel()
                sandbox._timer = None
            sandbox.state = State.PAUSED
            sandbox._lease.stop()
            sandbox.events.add(
                "sandbox paused: its processes stand still, its memory stays in this machine's"
            )
            return True

    async def _resume(self, sandbox: Sandbox, seconds: int) -> bool:
        async with sandbox._change:
            if sandbox.ending:
                raise SandboxNotFound(sandbox.sandbox_id)
            if sandbox.state is State.RUNNING:
                self._extend(sandbox, seconds)
                return False
            try:
                await sandbox.box.thaw()
            except BoxGone:
                raise SandboxNotFound(sandbox.sandbox_id) from None
            sandbox.state = State.RUNNING
            sandbox.started_at = datetime.now(timezone.utc)
            self._end_in(sandbox, seconds)
            sandbox.events.add("sandbox resumed")
            return True

    # Tasks

    def _run(self, coroutine: Coroutine[Any, Any, T]) -> asyncio.Task[T]:
        task = asyncio.get_running_loop().create_task(coroutine)
        self._tasks.add(task)
        task.add_done_callback(self._ran)
        return task

    def _ran(self, task: asyncio.Task[Any]) -> None:
        self._tasks.discard(task)
        # Asked for here so that asyncio does not complain where the one who waited has gone.
        error = None if task.cancelled() else task.exception()
        if error is not None and not isinstance(error, (HttpError, NoAnswer)):
            log.error("%s", error, exc_info=error)


def _reason(ended: asyncio.Future[str]) -> str:
    if ended.cancelled():
        return "cancelled"
    return str(ended.exception() or ended.result())
