"""Processes that fork while they use a sandbox."""

from __future__ import annotations

from collections.abc import Callable


def test_a_forked_process_works(holds: Callable[[], None]) -> None:
    """G34, G44: a child and its parent both go on, whatever the parent has used before it forked."""
    holds()
