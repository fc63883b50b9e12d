"""The end of the interpreter."""

from __future__ import annotations

from collections.abc import Callable


def test_nothing_holds_up_the_end(holds: Callable[[], None]) -> None:
    """G19: what a program left open does not hold it up, and nothing is printed."""
    holds()
