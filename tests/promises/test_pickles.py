"""Values and sandboxes that travel."""

from __future__ import annotations

from collections.abc import Callable


def test_what_the_sdk_gives_travels(holds: Callable[[], None]) -> None:
    """G61: pickle and copy work, and carry no key."""
    holds()
