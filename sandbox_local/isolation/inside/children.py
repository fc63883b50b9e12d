"""The children of a box's agent, from fork to wait."""

from __future__ import annotations

import os
import selectors
from collections.abc import Callable
from typing import NamedTuple, Protocol

from sandbox_local.isolation.inside.reaping import reaped
from sandbox_local.isolation.inside.spawn import Program, Spawner, outcome

Started = Callable[[int, Exception | None], None]
Ended = Callable[[int], None]


class _Child(NamedTuple):
    mark: str
    started: Started
    ended: Ended


class Starter(Protocol):
    """Starts programs and tells how it went, then how they ended; always in this order."""

    def start(self, program: Program, started: Started, ended: Ended) -> object:
        """See `Children.start`."""


class Children:
    """A `Starter` of children of this process."""

    def __init__(self, spawner: Spawner, selector: selectors.BaseSelector) -> None:
        self._spawner = spawner
        self._selector = selector
        self._children: dict[int, _Child] = {}
        self._reports: dict[int, int] = {}  # by process id, of those still on their way

    def start(self, program: Program, started: Started, ended: Ended) -> int:
        """Start a program.

        Args:
            program: What to start.
            started: Called with its process id, and None when the program is about to run, or why it is not.
            ended: Called with the wait status.

        Returns:
            The process id.

        Raises:
            OSError: The box may have no more processes or descriptors.
        """
        pid, report = self._spawner.start(program)
        self._children[pid] = _Child(program.tag.name, started, ended)
        self._reports[pid] = report
        self._selector.register(report, selectors.EVENT_READ, lambda: self._take_report(pid))
        return pid

    def marked(self, mark: str) -> list[int]:
        """The children that were started with that mark and have not been reaped."""
        return [pid for pid, child in self._children.items() if child.mark == mark]

    def reap(self) -> None:
        """Take note of all children that have ended, adopted orphans included."""
        for pid, status in reaped():
            if pid in self._reports:
                self._take_report(pid)
            child = self._children.pop(pid, None)
            if child:
                child.ended(status)

    def _take_report(self, pid: int) -> None:
        report = self._reports.pop(pid)
        self._selector.unregister(report)
        try:
            outcome(report)
        except Exception as error:  # noqa: BLE001  passed on
            self._children[pid].started(pid, error)
        else:
            self._children[pid].started(pid, None)
        finally:
            os.close(report)
