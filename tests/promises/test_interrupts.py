"""Signals in calls that block."""

from __future__ import annotations

from collections.abc import Callable


def test_a_signal_is_felt(holds: Callable[[], None]) -> None:
    """G41: Ctrl-C and alarms reach the program while a call blocks, and leave no command behind."""
    holds()


def test_handlers_are_left_alone(holds: Callable[[], None]) -> None:
    """G41: signals are the program's."""
    holds()
