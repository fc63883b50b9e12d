"""The deadline of a block of code: `with deadline(30): ...` bounds every call and every wait inside."""

from __future__ import annotations

import contextvars
from collections.abc import Iterator
from contextlib import contextmanager
from types import TracebackType

from sandbox_sync.deadlines import Deadline
from sandbox_sync.deadlines import seconds as duration
from sandbox_sync.errors import DeadlineExceededException, InvalidArgumentException

CLEAN_UP_SECONDS = 5.0
"""What an expired block still has to end what was begun in it."""

_block = contextvars.ContextVar[Deadline | None]("sandbox_sync_deadline", default=None)


class deadline:  # lower case as in contextlib: it is used like a function
    """Bounds everything of this SDK that is called in a `with` block: calls, retries, waits and iterations.

    A block inside another one can only shorten its time. What `request_timeout` and `timeout` say holds as
    well; whichever is up first counts. A foreground command is ended with the block; commands, terminals and
    watches in the background go on, and only waiting for them ends. Whoever leaves the `with` of a sandbox or
    of a command still has five seconds to kill it, so that nothing is left behind.

    It holds for this thread, task or greenlet; a thread that is started inside has no deadline, unless it is
    run in a copy of the context (`contextvars.copy_context().run`).

    Args:
        seconds: How long the block may take, from its beginning; None or 0 for no limit of its own.

    Raises:
        InvalidArgumentException: It is negative, infinite, or no number.
        DeadlineExceededException: Raised by what is called inside when the time is up. A block that calls
            nothing is not interrupted.
    """

    def __init__(self, seconds: float | None) -> None:
        self._seconds = duration(seconds, "seconds")
        self._deadline: Deadline | None = None
        self._token: contextvars.Token[Deadline | None] | None = None

    def __enter__(self) -> deadline:
        if self._token is not None:
            raise InvalidArgumentException("This deadline is in use; make another one for a block inside")
        own = None if self._seconds is None else Deadline.of_block(self._seconds)
        outer = _block.get()
        self._deadline = outer if own is None or (outer is not None and outer.comes_before(own)) else own
        self._token = _block.set(self._deadline)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        token, self._token = self._token, None
        if token is not None:
            _block.reset(token)

    def remaining(self) -> float | None:
        """How much time the block still has.

        Returns:
            Seconds, never below zero; None when there is no limit, or before the block begins.
        """
        return None if self._deadline is None else self._deadline.remaining()

    @property
    def expired(self) -> bool:
        """Whether the time is up."""
        return self._deadline is not None and self._deadline.expired


def by(seconds: float | None) -> Deadline:
    """The deadline so many seconds from now, or that of the block, whichever comes first."""
    block = _block.get()
    return Deadline.after(seconds) if block is None else block.sooner(seconds)


def exceeded(block: float, state: str, sandbox_id: str | None) -> DeadlineExceededException:
    """The error of a wait that the end of a block has ended.

    Args:
        block: Seconds of that block.
        state: What is still so.
        sandbox_id: Of which sandbox.
    """
    error = DeadlineExceededException(
        f"{state}, and the time of `with deadline({block:g})` is up; give the block more time",
        sandbox_id=sandbox_id,
    )
    error.limit = block
    return error


@contextmanager
def cleaning_up() -> Iterator[None]:
    """A block in which there are at least CLEAN_UP_SECONDS left, so that what was begun can be ended."""
    least = Deadline.of_block(CLEAN_UP_SECONDS)
    block = _block.get()
    token = _block.set(least if block is not None and block.comes_before(least) else block)
    try:
        yield
    finally:
        _block.reset(token)


def outlasting_context() -> contextvars.Context:
    """A copy of the caller's context without a deadline, for what goes on when the block has ended."""
    context = contextvars.copy_context()
    context.run(_block.set, None)
    return context
