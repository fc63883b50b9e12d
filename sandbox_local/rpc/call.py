"""One call from request messages to response messages, whatever the protocol."""

from __future__ import annotations

import asyncio
import logging
import sys
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable
from contextlib import aclosing
from dataclasses import dataclass
from typing import Any, TypeVar

from google.protobuf.message import Message
from sandbox_sync_rpc.services import Method

from sandbox_local.http import HttpError
from sandbox_local.rpc.codes import Code, RpcError
from sandbox_local.rpc.context import Context

log = logging.getLogger(__name__)

T = TypeVar("T")
Implementation = Callable[..., Any]
F = TypeVar("F", bound=Implementation)


def owns_deadline(implementation: F) -> F:
    """Mark a handler that enforces `context.timeout_ms` itself: to it that is more than the end of the call.

    A gRPC deadline still ends the call from outside.
    """
    implementation.owns_deadline = True  # type: ignore[attr-defined]
    return implementation


@dataclass(frozen=True)
class Endpoint:
    """A method and what implements it."""

    method: Method
    implementation: Implementation

    @property
    def owns_deadline(self) -> bool:
        """Whether the implementation enforces `context.timeout_ms` itself."""
        return getattr(self.implementation, "owns_deadline", False)

    async def run(
        self, requests: AsyncIterator[Message], context: Context, deadline: Deadline
    ) -> AsyncGenerator[Message, None]:
        """Run the method; a unary one gives one answer, a streaming one any number.

        Raises:
            RpcError: The call failed; nothing else is raised.
        """
        try:
            argument = requests if self.method.client_streaming else await deadline.bound(_only_one(requests))
            if not self.method.server_streaming:
                yield await deadline.bound(self.implementation(argument, context))
                return
            async with aclosing(self.implementation(argument, context)) as answers:
                while True:
                    try:
                        message = await deadline.bound(anext(answers))
                    except StopAsyncIteration:
                        return
                    yield message
        except RpcError:
            raise
        except HttpError as error:
            raise RpcError(Code.INVALID_ARGUMENT, error.message) from None
        except Exception:
            log.exception("%s failed", self.method.path)
            raise RpcError(Code.INTERNAL, "internal error") from None
        finally:
            deadline.cancel()


class Deadline:
    """The end of a call's time. It interrupts the work on the call, not the wait for a slow client."""

    def __init__(self, seconds: float | None) -> None:
        """Start the clock.

        Args:
            seconds: Time until it ends, or None for never.
        """
        self._passed = seconds is not None and seconds <= 0
        self._working: asyncio.Task[Any] | None = None
        self._timer: asyncio.TimerHandle | None = None
        if seconds is not None and not self._passed:
            self._timer = asyncio.get_running_loop().call_later(seconds, self._pass)

    async def bound(self, work: Awaitable[T]) -> T:
        """Await `work`, but not past the deadline.

        Raises:
            RpcError: The deadline has passed (DEADLINE_EXCEEDED).
        """
        if self._passed:
            close = getattr(work, "close", None)
            if close is not None:
                close()
            raise _deadline_exceeded()
        self._working = asyncio.current_task()
        try:
            return await work
        except asyncio.CancelledError:
            if not self._passed:
                raise
            if sys.version_info >= (3, 11) and self._working is not None and self._working.uncancel():
                raise  # the client went away at the same time
            raise _deadline_exceeded() from None
        finally:
            self._working = None

    def cancel(self) -> None:
        """Stop the clock."""
        if self._timer is not None:
            self._timer.cancel()

    def _pass(self) -> None:
        self._passed = True
        if self._working is not None:
            self._working.cancel()


def _deadline_exceeded() -> RpcError:
    return RpcError(Code.DEADLINE_EXCEEDED, "the deadline of the call has passed")


async def _only_one(requests: AsyncIterator[Message]) -> Message:
    """The single request of a method that takes no stream."""
    try:
        request = await anext(requests)
    except StopAsyncIteration:
        raise RpcError(Code.UNIMPLEMENTED, "the request has no message, this method takes one") from None
    async for _ in requests:
        raise RpcError(Code.UNIMPLEMENTED, "the request has several messages, this method takes one")
    return request
