"""Cancelling what can't be cancelled half way."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any, TypeVar

_Result = TypeVar("_Result")


async def finish_or_undo(
    work: Coroutine[Any, Any, _Result], undo: Callable[[_Result], Awaitable[None]]
) -> _Result:
    """Do something that makes something; if whoever waits is cancelled, let it be finished and undo it.

    Args:
        work: Makes something.
        undo: Does away with it.
    """
    task = asyncio.ensure_future(work)
    try:
        return await asyncio.shield(task)
    except asyncio.CancelledError:
        undoing = asyncio.ensure_future(_undo(task, undo))
        _undoings.add(undoing)  # the event loop keeps no hold on its tasks
        undoing.add_done_callback(_undoings.discard)
        raise


_undoings: set[asyncio.Future[None]] = set()


async def _undo(task: asyncio.Future[_Result], undo: Callable[[_Result], Awaitable[None]]) -> None:
    try:
        await undo(await task)
    except Exception:  # noqa: BLE001  there is nothing to undo, or nobody left to tell
        pass
