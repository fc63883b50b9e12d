"""The thread that ends what has taken too long."""

from __future__ import annotations

import threading
import time
import weakref

import pytest

from sandbox_sync.deadlines import Deadline
from sandbox_sync.errors import SandboxException
from sandbox_sync.transport.watchdog import Watch, Watchdog


def test_it_is_started_by_a_later_call_where_the_first_could_not(monkeypatch: pytest.MonkeyPatch) -> None:
    """A stand-in refuses the thread: the system's own limit would hold for the tests as well."""

    def refuse(_: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    ended = threading.Event()
    watch, watchdog = Watch(ended.set), Watchdog()
    watch.limit(Deadline.after(0.01), None)
    with monkeypatch.context() as without_threads:
        without_threads.setattr(threading.Thread, "start", refuse)
        with pytest.raises(SandboxException, match="sandbox-sync-watchdog"):
            watchdog.add(watch)
    watchdog.add(watch)
    assert ended.wait(10)


def test_it_keeps_nothing_that_nobody_else_knows() -> None:
    watchdog, checked = Watchdog(), threading.Event()
    first, second = Watch(lambda: None), Watch(checked.set)
    second.limit(Deadline.after(0.01), None)
    watchdog.add(first)
    watchdog.add(second)
    assert checked.wait(10)
    dropped = [weakref.ref(first), weakref.ref(second)]
    del first, second
    until = time.monotonic() + 10
    while any(reference() for reference in dropped):
        assert time.monotonic() < until, dropped
        time.sleep(0.01)
