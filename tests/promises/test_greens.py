"""Programs and servers whose threads are greenlets."""

from __future__ import annotations

from collections.abc import Callable


def test_a_hundred_run_at_once(holds: Callable[[], None]) -> None:
    """G37: greenlets do not wait for each other."""
    holds()
