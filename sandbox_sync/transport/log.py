"""What is logged of calls: which they were, how they ended and when; never what they carried."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from typing import TypeVar

from sandbox_sync.transport.failures import Failure, RpcFailure

T = TypeVar("T")


class CallLog:
    """Tells of the attempts of one call.

    Args:
        logger: Where.
        method: HTTP method.
        path: Path, without a query: that may carry signatures.
        sandbox_id: The sandbox that it is for, if any.
    """

    __slots__ = ("_attempts", "_begin", "_logger", "_what")

    def __init__(self, logger: logging.Logger, method: str, path: str, sandbox_id: str | None) -> None:
        self._logger = logger
        self._what = (method, path, sandbox_id)
        self._attempts = 0
        self._begin = 0.0

    def watched(self, attempt: Callable[[], T]) -> Callable[[], T]:
        """What makes an attempt and tells how it ended; the attempt itself if nobody wants to know."""
        if not self._logger.isEnabledFor(logging.DEBUG):
            return attempt

        def logged() -> T:
            self._attempts += 1
            self._begin = time.monotonic()
            try:
                answer = attempt()
            except Failure as failure:
                self._tell(_words(failure))
                raise
            except BaseException as error:
                self._tell(type(error).__name__)
                raise
            status = getattr(answer, "status_code", None) or getattr(answer, "status", None)
            self._tell(f"HTTP {status}" if isinstance(status, int) else "ok")
            return answer

        return logged

    def stream_over(self, failure: Failure | None = None) -> None:
        """Tell that a stream has come to its end, or failed after it had begun."""
        if self._logger.isEnabledFor(logging.DEBUG):
            self._tell(f"stream over, {'ok' if failure is None else _words(failure)}")

    def repeated(self, number: int, failure: Failure, wait: float) -> None:
        """Tell that attempt `number` failed and another will be made after `wait` seconds."""
        self._logger.info(
            "%s: %s, trying again in %.2f s (attempt %d)", self._name(), _words(failure), wait, number
        )

    def _tell(self, end: str) -> None:
        seconds = time.monotonic() - self._begin
        self._logger.debug("%s: %s after %.3f s (attempt %d)", self._name(), end, seconds, self._attempts)

    def _name(self) -> str:
        method, path, sandbox_id = self._what
        return f"{method} {path}" if sandbox_id is None else f"{method} {path} of sandbox {sandbox_id}"


def _words(failure: Failure) -> str:
    """How a call failed, in none of the server's own words: those may quote what was sent."""
    if failure.reason != "answer":
        return failure.reason
    code = f" {failure.code}" if isinstance(failure, RpcFailure) else ""
    return (f"HTTP {failure.status}{code}" if failure.status else code).strip() or "no usable answer"
