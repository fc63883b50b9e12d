"""Work in threads is never left behind."""

from __future__ import annotations

import asyncio
import threading

import pytest

from sandbox_local.threads import run_to_end


def test_results_and_errors_come_back() -> None:
    assert asyncio.run(run_to_end(divmod, 7, 2)) == (3, 1)
    with pytest.raises(ZeroDivisionError):
        asyncio.run(run_to_end(divmod, 7, 0))


def test_who_is_cancelled_waits_for_the_thread() -> None:
    begun, go_on, ended = threading.Event(), threading.Event(), threading.Event()

    def work() -> None:
        begun.set()
        go_on.wait(30)
        ended.set()

    async def main() -> None:
        task = asyncio.create_task(run_to_end(work))
        await asyncio.to_thread(begun.wait)
        for _ in range(3):
            task.cancel()
            await asyncio.wait([task], timeout=0.01)
            assert not task.done()
        go_on.set()
        await asyncio.wait([task])
        assert ended.is_set()
        assert task.cancelled()

    asyncio.run(main())
