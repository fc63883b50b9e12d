"""Threads."""

from __future__ import annotations

from collections.abc import Callable


def test_threads_share_a_sandbox(holds: Callable[[], None]) -> None:
    """G16: threads get their own answers and do not wait for each other."""
    holds()
