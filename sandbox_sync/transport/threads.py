"""Starting threads, so that signals do no harm and every refusal is told in the same words."""

from __future__ import annotations

import threading
from _thread import start_new_thread
from collections.abc import Callable

from sandbox_sync.deadlines import Deadline
from sandbox_sync.errors import SandboxException
from sandbox_sync.transport.conditions import Waiter
from sandbox_sync.transport.signals import signals_strike_here


def start(name: str, work: Callable[..., object], *arguments: object, daemon: bool = True) -> None:
    """Start a thread.

    `Thread.start` waits for its beginning by a condition, with all that signals can do to one; the new thread
    may even hang in it. So where signals strike, another thread makes the thread and starts it.

    Args:
        name: The thread's name.
        work: What it does.
        arguments: With what.
        daemon: Whether the program may end before it.

    Raises:
        SandboxException: The system allows no more threads, or the program is ending.
    """
    refusals: list[RuntimeError] = []

    def begin() -> None:
        try:
            threading.Thread(target=work, args=arguments, name=name, daemon=daemon).start()
        except RuntimeError as error:
            refusals.append(error)

    def begin_for_another() -> None:
        try:
            begin()
        finally:
            begun.wake()

    if signals_strike_here():
        begun = Waiter()
        try:
            start_new_thread(begin_for_another, ())
        except RuntimeError as error:
            refusals.append(error)
        else:
            begun.wait(Deadline.after(None))
    else:
        begin()
    if refusals:
        raise SandboxException(
            f"No thread can be started for {name}: {refusals[0]}. This process has as many as the system "
            "allows, or it is ending"
        ) from refusals[0]


def aside(name: str, work: Callable[[], object], seconds: float | None, *, daemon: bool = True) -> None:
    """Have another thread do something, and wait for it; this one does it where no thread can be started.

    Args:
        name: The thread's name.
        work: What to do.
        seconds: How long to wait; the work goes on when the time is up. None for no limit.
        daemon: Whether the program may end before the work does.
    """
    done = Waiter()

    def run() -> None:
        try:
            work()
        finally:
            done.wake()

    try:
        start(name, run, daemon=daemon)
    except SandboxException:
        work()
    else:
        done.wait(Deadline.after(seconds))
