"""What callers hold of a streaming call, whichever channel carries it."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator
from typing import Generic, Protocol, TypeVar

from sandbox_sync.deadlines import Deadline
from sandbox_sync.errors import SandboxException
from sandbox_sync.transport.failures import RpcFailure
from sandbox_sync.transport.log import CallLog

R = TypeVar("R")
R_co = TypeVar("R_co", covariant=True)


class Answers(Protocol[R_co]):
    """What the streams of both channels can do. Iterating raises RpcFailure."""

    def __iter__(self) -> Iterator[R_co]: ...

    def limit(self, deadline: Deadline, silence: float | None = None) -> None:
        """Set what bounds the reading from now on, in place of what did before.

        Args:
            deadline: When reading ends.
            silence: Seconds for which the server may send nothing; None for any time.
        """

    def cancel(self) -> None:
        """End the call now, from any thread. A thread that reads gets a failure with reason "cancelled"."""


class RpcStream(Generic[R]):
    """The answers of a streaming call, as they arrive. Dropping it ends the call.

    Args:
        answers: The stream of a channel.
        first: Those answers that were taken from it already; an iteration begins with them all the same.
        explain: Makes an error of a failure.
        log: Is told of the end.

    Attributes:
        first: As given.
        cancelled: Whether `cancel` was called.
    """

    def __init__(
        self,
        answers: Answers[R],
        first: list[R],
        explain: Callable[[RpcFailure], SandboxException],
        log: CallLog,
    ) -> None:
        self.first = first
        self.cancelled = False
        self._answers = answers
        self._explain = explain
        self._messages = _followed(first, answers, explain, log)

    def __iter__(self) -> Iterator[R]:
        return self._messages

    def __next__(self) -> R:
        """The next answer.

        Raises:
            StopIteration: The call is over, or was cancelled.
            SandboxException: It failed.
        """
        return next(self._messages)

    def cut_short(self, message: str) -> SandboxException:
        """The error for a stream that came to an end which is none."""
        return self._explain(RpcFailure(message, code="unavailable", reason="broken"))

    def cancel(self) -> None:
        """End the call now: from any thread, any number of times. Who waits for an answer stops waiting."""
        self.cancelled = True
        self._answers.cancel()
        try:
            self._messages.close()
        except ValueError:
            pass  # another thread waits in it, and is being woken up


def _followed(
    first: list[R],
    answers: Answers[R],
    explain: Callable[[RpcFailure], SandboxException],
    log: CallLog,
) -> Generator[R, None, None]:
    try:
        yield from first
        yield from answers
        log.stream_over()
    except RpcFailure as failure:
        log.stream_over(failure)
        if failure.reason != "cancelled":
            raise explain(failure) from None
