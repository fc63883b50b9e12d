"""From a request to its answer, whatever the wire: run the handler, move the body of the response."""

from __future__ import annotations

import asyncio
import functools
import logging
import time
import types
from collections.abc import AsyncIterator, Awaitable, Callable, Generator
from email.utils import formatdate
from typing import Any, Protocol, TypeVar

from sandbox_local.http.errors import ClientGone, HttpError
from sandbox_local.http.message import FileSlice, Handler, Headers, Request, Response

log = logging.getLogger(__name__)

T = TypeVar("T")

_BATCH = 256 << 10

CONNECTION_FIELDS = frozenset({"connection", "keep-alive", "transfer-encoding", "upgrade"})


class Sink(Protocol):
    """Where the pieces of a body go."""

    def send(self, pieces: list[bytes]) -> None:
        """Send pieces together, the head before the first of them; an empty list sends the head alone."""

    async def drain(self) -> None:
        """Wait until more may be sent.

        Raises:
            ClientGone: There is nobody to send to.
        """


async def answer(handler: Handler, request: Request) -> Response:
    """Run a handler; what it raises becomes an answer that tells nothing of the inside.

    Raises:
        ClientGone: There is nobody to answer.
    """
    try:
        return await handler(request)
    except HttpError as error:
        return Response.error(error)
    except ClientGone:
        raise
    except Exception:
        log.exception("%s %s failed", request.method, request.raw_path)
        return Response.error(HttpError(500, "internal error"))


async def pump(body: AsyncIterator[bytes], sink: Sink) -> list[bytes]:
    """Move a body into a sink. Pieces that are ready at once travel together; none waits for one that is not.

    Returns:
        The last pieces, not sent yet, so that the end of the body can travel with them.
    """
    pending: list[bytes] = []
    size = 0
    sent = False

    def flush() -> None:
        nonlocal pending, size, sent
        sink.send(pending)
        pending, size, sent = [], 0, True

    while True:
        try:
            piece = await _before_waiting(anext(body), flush)
        except StopAsyncIteration:
            return pending
        if sent:
            await sink.drain()
            sent = False
        if piece:
            pending.append(piece)
            size += len(piece)
        if size >= _BATCH:
            flush()
            await asyncio.sleep(0)  # a body that is always ready must not starve the other connections


async def dispose(response: Response) -> None:
    """Release what a response's body holds; again is harmless."""
    if isinstance(response.body, FileSlice):
        response.body.close()
        return
    close = getattr(response.body, "aclose", None)
    if close is not None:
        await close()


def outgoing_fields(
    headers: Headers, *, date: bool = True, managed: frozenset[str] = CONNECTION_FIELDS
) -> list[tuple[bytes, bytes]]:
    """Header fields as they go out.

    Args:
        headers: What the response says.
        date: Whether to add the date.
        managed: Names of the fields that are the engine's business and are left out.

    Raises:
        ValueError: A value would break out of its field, or is not Latin-1.
    """
    fields = []
    for name, value in headers.fields():
        if name in managed:
            continue
        if "\r" in value or "\n" in value or "\0" in value:
            raise ValueError(f"header field {name} would break out of its line")
        fields.append((name.encode("ascii"), value.encode("latin-1")))
    if date and "date" not in headers:
        fields.append((b"date", _date(int(time.time()))))
    return fields


@functools.lru_cache(maxsize=1)
def _date(now: int) -> bytes:
    return formatdate(now, usegmt=True).encode("ascii")


@types.coroutine
def _before_waiting(awaitable: Awaitable[T], act: Callable[[], None]) -> Generator[Any, Any, T]:
    """Await `awaitable`; call `act` first if it can't give its result at once."""
    steps = awaitable.__await__()
    try:
        waited_for = next(steps)
    except StopIteration as stop:
        return stop.value  # type: ignore[no-any-return]
    try:
        act()
    except BaseException:
        # What has begun to wait can't be closed as it is: an async generator counts as running.
        try:
            yield from _driven(steps, steps.throw(asyncio.CancelledError()))
        except (Exception, asyncio.CancelledError):  # noqa: BLE001 (what went wrong first is what counts)
            pass
        raise
    return (yield from _driven(steps, waited_for))


def _driven(steps: Generator[Any, Any, T], waited_for: Any) -> Generator[Any, Any, T]:
    """Await the rest of what has begun to wait."""
    while True:
        try:
            sent = yield waited_for
        except BaseException as error:  # noqa: BLE001 (all of it belongs to the awaitable)
            step = functools.partial(steps.throw, error)
        else:
            step = functools.partial(steps.send, sent)
        try:
            waited_for = step()
        except StopIteration as stop:
            return stop.value  # type: ignore[no-any-return]
