"""Jobs without anybody who looks after them."""

from __future__ import annotations

from collections.abc import Callable


def test_a_job_has_an_end(holds: Callable[[], None]) -> None:
    """What a job holds ends with it, and what it does ends in time."""
    holds()
